"""Overview of the studies in a storage folder or an object store: a line for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from study.analysis.result_types import VERSION
from study.config.begun_study import BegunStudy, parse_begun
from study.inventory.expected_trials import trials_in_all
from study.storage import journal_reader, study_files
from study.storage.journal_reader import JournalContent
from study.storage.lease import LEASE
from study.storage.object_store import is_store, local_copy
from study.storage.paths import atomic_write
from study.storage.study_files import StudyFiles
from study.storage.study_folder import JOURNAL, RESULTS, SETTINGS
from trainables import stored_json
from trainables.cache import regular_file
from trainables.errors import BadInput

NOTES = ".list.json"
"""File, in this machine's copy of a store, with the overviews of its studies."""
READERS = 32
"""Number of studies of an object store that are read at once."""


class State(StrEnum):
    """How far a study is."""

    FINISHED = "finished"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    HALF_MADE = "half-made"
    """The study was killed before it was begun, or while it was deleted."""
    UNREADABLE = "unreadable"
    """A newer version wrote it, or it is damaged."""


@dataclass(frozen=True, kw_only=True)
class StudyOverview:
    """What a list of studies says of one."""

    study: str
    """Name of the study."""
    state: State
    trials: int = 0
    """Trials that have ended, of the search and of the confirmation."""
    trials_in_all: int | None = None
    """Trials that the study will have; None if that is not known."""
    verdict: str = ""
    """Answer of a finished study, or the reason why a study cannot be read."""
    begun: str = ""
    """Local time at which the study began."""
    host: str = ""
    """Machine on which the study runs, if that is known."""
    bytes: int
    """Bytes of all files."""
    where: str
    """Folder or URL of the study."""
    mlflow: str = ""
    """Address of the MLflow store in which its last session recorded it, without secrets; empty for
    the one in the storage folder, and where it is not known."""


@dataclass(frozen=True, kw_only=True)
class _Results:
    """What is read of ``results.json``."""

    verdict: str
    trials: tuple[Any, ...] = ()
    protocol: Mapping[str, Any]
    mlflow: str = ""


def overviews(storage: str) -> list[StudyOverview]:
    """Every study in what ``--storage`` names, the latest last.

    Raises:
        BadInput: there is no such folder, or the store cannot be read.
    """
    every = study_files.every(storage)
    found = _in_store(storage, every) if is_store(storage) else list(map(overview, every))
    return sorted(found, key=lambda each: (each.begun, each.study))


def _in_store(storage: str, every: Sequence[StudyFiles]) -> list[StudyOverview]:
    """Overviews of studies in a store, several read at a time. They are noted on this machine, and
    studies that have not changed since are not read again."""
    notes = local_copy(storage) / NOTES
    noted: dict[str, Any] = {}
    with suppress(OSError):
        noted = stored_json.object_in(regular_file.content(notes))
    known = {files.name: _known(files, noted) for files in every}
    with ThreadPoolExecutor(READERS) as pool:  # that only read: what they read is parsed here
        unknown = [files for files in every if known[files.name] is None]
        read = {files.name: files for files in pool.map(_read, unknown)}
    found = [known[files.name] or overview(read[files.name]) for files in every]
    kept = {
        row.study: {"files": _state_of_files(files), "row": asdict(row)}
        for files, row in zip(every, found, strict=True)
        if row.state in (State.FINISHED, State.INTERRUPTED)
    }
    if kept != noted:
        with suppress(OSError), atomic_write(notes) as partial:
            partial.write_text(json.dumps(kept), encoding="utf-8")
    return found


def _read(files: StudyFiles) -> StudyFiles:
    """A study with the files that its overview is made of; without them, if they cannot be read, so
    that the overview says why."""
    whole = RESULTS in files.versions and LEASE not in files.versions
    try:
        return files.with_contents([RESULTS] if whole else [LEASE, SETTINGS, JOURNAL])
    except BadInput:
        return files


def _known(files: StudyFiles, noted: Mapping[str, Any]) -> StudyOverview | None:
    """Overview of a study as it was noted; None if it has changed, or if a driver runs it."""
    note = noted.get(files.name)
    if LEASE in files.versions or not isinstance(note, dict):
        return None
    if note.get("files") != _state_of_files(files):
        return None
    try:
        row = stored_json.parse(StudyOverview, note.get("row"), "a note")
    except BadInput:  # another version has noted it
        return None
    return replace(row, bytes=files.size)


def _state_of_files(files: StudyFiles) -> list[list[int] | None]:
    """What changes when an overview does."""
    read = (SETTINGS, JOURNAL, RESULTS)
    return [list(files.versions[name]) if name in files.versions else None for name in read]


def overview(files: StudyFiles) -> StudyOverview:
    """Overview of one study. What cannot be read is said in it."""
    try:
        return _overview(files)
    except (BadInput, OSError, ValueError, KeyError, TypeError) as error:
        line = str(error).replace("\n", " ")
        return _row(files, State.UNREADABLE, verdict=line)


def begun_of(files: StudyFiles) -> BegunStudy:
    """Content of a study's ``study.json``.

    Raises:
        BadInput: it is damaged, or a newer version or another program wrote it.
    """
    return parse_begun(files.read(SETTINGS) or b"", f"{files.where}/{SETTINGS}")


def journal_of(files: StudyFiles) -> JournalContent:
    """Content of a study's journal; it is empty if the study has none yet.

    Raises:
        BadInput: it is damaged, or a newer version wrote it.
    """
    return journal_reader.read(files.read(JOURNAL) or b"", f"{files.where}/{JOURNAL}")


def _overview(files: StudyFiles) -> StudyOverview:
    driver = files.driver()
    host = None if driver is None else driver.partition(" ")[0]
    if host is None and files.half_made:
        return _row(files, State.HALF_MADE)
    if host is None and RESULTS in files.versions:
        content, source = files.read(RESULTS) or b"", f"{files.where}/{RESULTS}"
        versions = range(1, VERSION + 1)
        found = stored_json.read_content(_Results, content, source, versions=versions)
        ended, verdict = len(found.trials), " ".join(found.verdict.split())
        known = {"begun": str(found.protocol.get("begun", "")), "mlflow": found.mlflow}
        return _row(files, State.FINISHED, trials=ended, verdict=verdict, **known)
    if files.half_made:  # it begins at this moment
        return _row(files, State.RUNNING, host=host or "")
    study, journal = begun_of(files), journal_of(files)
    return _row(
        files,
        State.INTERRUPTED if host is None else State.RUNNING,
        trials=sum(record.outcome is not None for record in journal.records),
        trials_in_all=trials_in_all(study, journal),
        begun=study.begun,
        host=host or (journal.session.host if journal.session and host is not None else ""),
        mlflow="".join(journal.mlflow[-1:]),
    )


def _row(files: StudyFiles, state: State, **known: Any) -> StudyOverview:
    return StudyOverview(
        study=files.name, state=state, bytes=files.size, where=files.where, **known
    )


def size_of_all(found: Sequence[StudyOverview]) -> int:
    """Bytes of several studies together."""
    return sum(each.bytes for each in found)
