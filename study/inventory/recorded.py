"""MLflow stores in which a study was recorded."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from study.inventory.overview import journal_of
from study.storage import study_files
from study.storage.journal_reader import JournalContent
from study.storage.study_files import StudyFiles
from study.storage.study_folder import SETTINGS
from study.tracking.mlflow_database import sqlite_file
from study.tracking.mlflow_store import VARIABLE, noted, usable
from trainables.errors import BadInput
from trainables.stored_json import object_in


def mlflow_addresses(files: StudyFiles, journal: JournalContent | None = None) -> tuple[str, ...]:
    """Addresses of the MLflow stores in which sessions of a study recorded it, that of the last
    session last, as ``study.tracking.mlflow_store.noted`` gives them: an empty one is that of the
    storage folder. None at all: it was not noted.

    The journal, which is read unless it is given, has them. Of sessions of earlier versions only
    an option of the first is known. What cannot be read is passed over, so that a study of a newer
    version can be deleted too.

    Raises:
        BadInput: ``study.json`` cannot be read.
    """
    storage = files.study_folder.local_storage
    try:
        known = (journal or journal_of(files)).mlflow
    except BadInput:
        known = ()
    option = _first_option(files.read(SETTINGS) or b"")
    first = noted(option, storage) if option else ""
    # A relative path is one of the folder in which the study was begun.
    if not option or (known and _is_relative(option)) or first in known:
        return known
    return (first, *known)


def recorded_store(storage: str, study: str) -> str | None:
    """Address, to open it, of the MLflow store in which the last session of a study recorded it;
    None if that is the one in the storage folder, or is not known.

    Raises:
        BadInput: there is no such study, or ``opened`` raises it.
    """
    files = study_files.one(storage, study)
    address = "".join(mlflow_addresses(files)[-1:])
    return opened(files, address, ()) if address else None


def opened(files: StudyFiles, address: str, known: Iterable[str | None]) -> str:
    """Address, to open it, of an MLflow store in which a study was recorded.

    Args:
        files: the study.
        address: one of ``mlflow_addresses``.
        known: addresses that the user gave, of which one may have the password.

    Raises:
        BadInput: the address needs a password that none has, or its file is not there.
    """
    uri = usable(address, files.study_folder.local_storage, known)
    if uri is None:
        raise BadInput(
            f"study {files.name!r} was recorded in {address}, whose password is not kept: give "
            f"--tracking-uri or {VARIABLE} with it"
        )
    file = sqlite_file(uri) if address else None
    if file is not None and not file.is_file():
        raise BadInput(
            f"study {files.name!r} was recorded in {address}, which is not there: give the "
            "--tracking-uri where it is now"
        )
    return uri


def _first_option(settings: bytes) -> str:
    """Value of ``--tracking-uri`` in the command that began a study; empty if it has none."""
    command = object_in(settings).get("command")
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:  # a quote is not closed
        return ""
    for word, after in zip(words, [*words[1:], ""], strict=False):
        name, _, value = word.partition("=")
        if name == "--tracking-uri":
            return value or after
    return ""


def _is_relative(uri: str) -> bool:
    """Whether an address is that of a file by a relative path."""
    return uri.startswith("sqlite:///") and not uri.startswith("sqlite:////")
