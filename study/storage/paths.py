"""Paths of files that a study writes: safe names, and files that are written whole or not at all.

Names of studies and arms, ids of trials and keys of an object store are read from files that others
may have written. A path that is made of them must not lead out of its folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from trainables.cache.on_disk import sync
from trainables.errors import BadInput

STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Pattern that the whole name of a study matches."""
MLFLOW_DATABASE = "mlflow.db"
"""File, in a storage folder, of MLflow's database."""
MLFLOW_ARTIFACTS = "mlflow-artifacts"
"""Folder, in a storage folder, of the files that MLflow keeps."""
SQLITE_SIDES = ("-journal", "-wal", "-shm")
"""Ends of the names of the files that SQLite keeps beside a database."""
TAKEN = {MLFLOW_ARTIFACTS, MLFLOW_DATABASE, *(MLFLOW_DATABASE + side for side in SQLITE_SIDES)}
"""Names in a storage folder that no study may have."""
PARTIAL = re.compile(r"\.[^/]+\.partial-(?:([0-9a-f]{8})-(\d{1,9})|\d{1,9}|[0-9a-f]{32})")
"""Pattern that the whole name of a file or folder matches which is being written: machine and
process. Earlier versions named files without the machine, and leases by chance."""
LONGEST_NAME_BYTES = 255
"""Bytes of the longest file name that Linux's file systems take."""


def check_study_name(storage: Path, name: str) -> None:
    """Check that a study of this name may be in a storage folder.

    Raises:
        BadInput: the name is not allowed, or something else there has it.
    """
    if not STUDY_NAME.fullmatch(name):
        raise BadInput(f"--name {name!r} must be letters, digits, '.', '_' and '-', at most 100")
    folder = storage / name
    if name.casefold() in TAKEN or (folder.exists() and not folder.is_dir()):
        whose = "MLflow's" if name.casefold() in TAKEN else "there already and no folder"
        raise BadInput(f"--name {name!r} cannot be a study's: {folder} is {whose}; give another")


def safe_join(folder: Path, *names: str) -> Path:
    """Path in ``folder`` through ``names``, each the name of one file or folder.

    Raises:
        BadInput: a name, such as ``../x``, is not that of one file or folder.
    """
    for name in names:
        if not _is_file_name(name):
            raise BadInput(
                f"{name!r} cannot name a file in {folder}: a name is neither '.' nor '..' and has "
                "no '/' or '\\'; no study wrote it, so give back the study's files as they were"
            )
    return folder.joinpath(*names)


def real_path(path: str | Path) -> Path:
    """Absolute path without links and ``..``, of a path that need not exist. A link to itself is
    left as it is: ``Path.resolve`` raises RuntimeError for it before Python 3.13."""
    return Path(os.path.realpath(path))


def nearest(path: Path) -> Path:
    """The path if anything is there, also a link to nothing; or else the nearest folder above it
    that exists."""
    every = (path, *path.absolute().parents)
    return next((each for each in every if os.path.lexists(each)), Path("/"))


def partial_path(path: Path) -> Path:
    """Path beside ``path`` that this process writes before it becomes ``path``. No process of
    another machine that shares the folder has the same."""
    return path.with_name(f".{path.name}.partial-{_machine()}-{os.getpid()}")


def is_partial(name: str) -> bool:
    """Whether a name is one of a file or folder that is being written, or was when its process
    ended."""
    return PARTIAL.fullmatch(name) is not None


def was_left(name: str) -> bool:
    """Whether what has this name was being written by a process of this machine that has ended, as
    one that was killed."""
    found = PARTIAL.fullmatch(name)
    return found is not None and found[1] == _machine() and not psutil.pid_exists(int(found[2]))


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file beside ``path``, which replaces ``path`` at the end of the
    block. Readers see the old content or the new, also after the machine or its disk has failed,
    and nothing is left if the block raises.

    Raises:
        OSError: the disk does not take the content.
    """
    partial = partial_path(path)
    try:
        yield partial
        sync(partial)  # else the name may be on the disk before the content: an empty file
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _is_file_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name.isprintable()
        and not {"/", "\\"} & set(name)
        and len(name.encode()) <= LONGEST_NAME_BYTES
    )
