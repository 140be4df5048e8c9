"""Temporary folders that do not stay after a process that was killed.

A process that is killed cannot remove its folders. So each has a name by which later processes of
the project find it, and is locked while its process lives; whoever makes a folder removes those
that nobody locks. A folder may also name a folder that a library made for this process and does
not remove.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

PREFIX = "medvlm-run-"
"""First letters of the folders' names."""
LOCK = ".lock"
"""Name of a file in a folder, which is locked while the folder's process lives."""
ALSO = "also"
"""Name of a link in a folder: to another folder that goes with it."""
YOUNG_SECONDS = 60.0
"""Age in seconds up to which a folder is left alone: its process may be about to lock it."""
SOCKET_BYTES = 107
"""Bytes of the longest path that a socket can have on Linux (``sun_path`` of unix(7))."""
RAYS_SOCKET = "ray/session_2026-12-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path of a socket of Ray within its temporary folder."""
SHORT = Path("/tmp")
"""Temporary folder for what does not fit into a folder with a long path."""


def ray_folder() -> Path:
    """Folder in which Ray makes the folder of its session: that of ``RAY_TMPDIR`` or ``TMPDIR``, as
    Ray has it, or ``/tmp`` if the path of that is too long for Ray's sockets, as Slurm's may be."""
    given = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or SHORT)
    return (given if _has_room(given, RAYS_SOCKET) else SHORT) / "ray"


@contextmanager
def folder(purpose: str, *, socket: str | None = None) -> Iterator[Path]:
    """Give a new folder that no other user may enter, and remove it at the end. Folders of
    processes that were killed are removed first.

    Args:
        purpose: a word of the folder's name.
        socket: name of a socket that will be in it. If the temporary folder's path is too long for
            it, the folder is in ``/tmp``.
    """
    _remove_abandoned()
    usual, prefix = Path(tempfile.gettempdir()), f"{PREFIX}{purpose}-"
    fits = socket is None or _has_room(usual, f"{prefix}12345678/{socket}")
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=usual if fits else SHORT))
    lock = os.open(made / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with suppress(OSError):  # a file system without locks: the folder stays if we are killed
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield made
    finally:
        _remove(made)
        os.close(lock)


def also(made: Path, other: Path) -> None:
    """Let ``other``, a folder that a library made, be removed together with ``made``."""
    (made / ALSO).symlink_to(other)


def _has_room(path: Path, below: str) -> bool:
    """Whether a socket can have a path below another."""
    return len(os.fsencode(path / below)) <= SOCKET_BYTES


def _remove(made: Path) -> None:
    """Remove a folder, and the folder that goes with it, as far as they can be removed."""
    other = made / ALSO
    if other.is_symlink():
        shutil.rmtree(other.readlink(), ignore_errors=True)
    shutil.rmtree(made, ignore_errors=True)


def _remove_abandoned() -> None:
    """Remove this user's folders whose processes have ended."""
    folders = {Path(tempfile.gettempdir()), SHORT}
    for found in chain.from_iterable(each.glob(f"{PREFIX}*-*") for each in folders):
        with suppress(OSError):
            state = found.lstat()
            ours = state.st_uid == os.getuid() and not found.is_symlink() and found.is_dir()
            if not ours or time.time() - state.st_mtime < YOUNG_SECONDS:
                continue
            lock = os.open(found / LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(found)
            finally:
                os.close(lock)
