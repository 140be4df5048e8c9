"""Temporary folders that do not stay after a process that was killed.

A process that is killed cannot remove its folders. So each has a name by which later processes of
the project find it, and is locked while its process lives; whoever makes a folder removes those
that nobody locks.
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

PREFIX = "medvlm."
"""First letters of the folders' names."""
LOCK = ".lock"
"""Name of a file in a folder, which is locked while the folder's process lives."""
YOUNG_SECONDS = 60.0
"""Age in seconds up to which a folder is left alone: its process may be about to lock it."""
SOCKET_BYTES = 107
"""Bytes of the longest path that a socket can have on Linux (``sun_path`` of unix(7))."""
SOCKETS = {
    "ray": "session_2026-12-01_00-00-00_000000_4194304/sockets/plasma_store",
    "zygote": "socket",
}
"""Purpose of a folder -> longest path of a socket in it."""
SHORT = Path("/tmp")
"""Temporary folder for what does not fit into a folder with a long path."""


def parent(purpose: str) -> Path:
    """Folder in which the folders for a purpose are made: that of ``TMPDIR``, for ``ray`` that of
    ``RAY_TMPDIR`` if it is set, as Ray has it; or ``/tmp`` where the path of a socket would be too
    long, as in a folder of Slurm's."""
    given = Path((purpose == "ray" and os.environ.get("RAY_TMPDIR")) or tempfile.gettempdir())
    if purpose not in SOCKETS:
        return given
    longest = given / f"{PREFIX}{purpose}-12345678" / SOCKETS[purpose]
    return given if len(os.fsencode(longest)) <= SOCKET_BYTES else SHORT


@contextmanager
def folder(purpose: str) -> Iterator[Path]:
    """Give a new folder that no other user may enter, and remove it at the end. Folders of
    processes that were killed are removed first.

    Args:
        purpose: a word of the folder's name.
    """
    _remove_abandoned()
    where = parent(purpose)
    where.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-", dir=where))
    lock = os.open(made / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with suppress(OSError):  # a file system without locks: the folder stays if we are killed
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def _remove_abandoned() -> None:
    """Remove this user's folders whose processes have ended."""
    folders = {parent("any"), parent("ray"), SHORT}
    for found in chain.from_iterable(each.glob(f"{PREFIX}*-*") for each in folders):
        with suppress(OSError):
            state = found.lstat()
            ours = state.st_uid == os.getuid() and not found.is_symlink() and found.is_dir()
            if not ours or time.time() - state.st_mtime < YOUNG_SECONDS:
                continue
            lock = os.open(found / LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(found, ignore_errors=True)
            finally:
                os.close(lock)
