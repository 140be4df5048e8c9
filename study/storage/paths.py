"""Text that becomes part of a path: names of studies and arms, ids of trials, keys of a store.

It is read from files that others may have written, and must not lead out of the folder it is for.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainables.errors import BadInput

STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""The whole name of a study."""
MLFLOW_DATABASE = "mlflow.db"
"""File, in a storage folder, of MLflow's database."""
MLFLOW_ARTIFACTS = "mlflow-artifacts"
"""Folder, in a storage folder, of the files that MLflow keeps."""
SQLITE_SIDES = ("-journal", "-wal", "-shm")
"""Ends of the names of the files that SQLite keeps beside a database."""
TAKEN = {MLFLOW_ARTIFACTS, MLFLOW_DATABASE, *(MLFLOW_DATABASE + side for side in SQLITE_SIDES)}
"""Names in a storage folder that no study may have."""
LONGEST_BYTES = 255
"""Of a name, on the file systems of Linux."""


def check_study_name(storage: Path, name: str) -> None:
    """Check that a study of this name may be in a storage folder.

    Raises:
        BadInput: the name is not allowed, or something else there has it.
    """
    if not STUDY.fullmatch(name):
        raise BadInput(f"--name {name!r} must be letters, digits, '.', '_' and '-', at most 100")
    folder = storage / name
    if name.casefold() in TAKEN or (folder.exists() and not folder.is_dir()):
        whose = "MLflow's" if name.casefold() in TAKEN else "there already and no folder"
        raise BadInput(f"--name {name!r} cannot be a study's: {folder} is {whose}; give another")


def below(folder: Path, *names: str) -> Path:
    """The path below ``folder`` that goes through ``names``, each of one file or folder.

    Raises:
        BadInput: a name is none, as ``../x``.
    """
    for name in names:
        if not _plain(name):
            raise BadInput(
                f"{name!r} cannot name a file in {folder}: a name is neither '.' nor '..' and has "
                "no '/' or '\\'; no study wrote it, so give back the study's files as they were"
            )
    return folder.joinpath(*names)


def _plain(name: object) -> bool:
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name.isprintable()
        and not {"/", "\\"} & set(name)
        and len(name.encode()) <= LONGEST_BYTES
    )
