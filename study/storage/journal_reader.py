"""Reads a study's journal without Optuna, whose import takes long, and without writing anything.

The journal is Optuna's: an operation in each line, as a JSON object. What this project knows of a
trial is in the user attributes that ``study.search.journal`` writes, and so nothing else is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from study.trials.record import Time, TrialRecord
from trainables import stored_json
from trainables.errors import BadInput, without_controls


class Operation(IntEnum):
    """Numbers of the operations that are read, as in
    ``optuna.storages.journal._storage.JournalOperation``."""

    CREATE_STUDY = 0
    SET_STUDY_ATTRIBUTE = 2
    CREATE_TRIAL = 4
    SET_TRIAL_ATTRIBUTE = 8


OTHERS = tuple(f'{{"op_code": {number},'.encode() for number in (5, 6, 7, 9))
"""Beginnings of the lines of other operations, which are most of a journal and need no parsing."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A driver's run of a study, from its beginning or from ``--resume`` on."""

    began: Time
    """Time at which it began."""
    seconds: float
    """Seconds that the study had run in earlier sessions."""
    devices: int
    """Number of devices that compute."""
    concurrency: int
    """Trials at a time on all devices."""
    host: str
    """Name of the driver's machine."""
    driver: str = ""
    """Name of the driver in the study's lock or lease; empty in sessions of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class JournalContent:
    """What a journal says of a study."""

    records: tuple[TrialRecord, ...] = ()
    """Trials, the oldest first."""
    session: Session | None = None
    """The last session; None before the first trial, and for a study that is older than this."""
    seconds: float = 0.0
    """Seconds that the study had run when a trial last ended, all its sessions together."""
    search_over: bool = False
    """Whether the search has ended before all its trials were drawn."""
    mlflow: tuple[str, ...] = ()
    """Addresses of the MLflow stores in which sessions recorded the study, that of the last session
    last, as ``study.tracking.mlflow_store.noted`` gives them; empty if none was noted."""


@dataclass(kw_only=True)
class _Attributes:
    """What operations have made so far."""

    studies: list[str] = field(default_factory=list)
    """Names of Optuna's studies, by number."""
    of_study: dict[str, dict[str, Any]] = field(default_factory=dict)
    trials: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Number of a trial in its study, and its attributes, by number in the journal."""


def read(content: bytes, source: str) -> JournalContent:
    """The content of a journal. A last line that is not whole is ignored, as one that is being
    written. ``source`` is named in errors.

    Raises:
        BadInput: another program or a newer version wrote it, or it is damaged.
    """
    found = _Attributes()
    counts: dict[int, int] = {}
    try:
        whole = content[: content.rfind(b"\n") + 1].splitlines()
        lines = [line for line in whole if not line.startswith(OTHERS)]
        # Faster than line by line.
        text = without_controls((b"[" + b",".join(lines) + b"]").decode())
        for operation in json.loads(text):
            _apply(operation, found, counts)
        records = [TrialRecord.from_attributes(held, number) for number, held in found.trials]
        search = found.of_study.get("search", {})
        session = search.get("session")
        return JournalContent(
            records=tuple(record for record in records if record is not None),
            session=stored_json.parse(Session, session, "the session") if session else None,
            seconds=stored_json.parse(float, search.get("seconds", 0.0), "seconds"),
            search_over=search.get("cut_short", False) or search.get("tuned", False),
            mlflow=tuple(map(str, search.get("mlflow", ()))),
        )
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise BadInput(
            f"{source} is damaged, or a newer version wrote it ({type(error).__name__}: {error})"
        ) from None


def _apply(operation: Mapping[str, Any], found: _Attributes, counts: dict[int, int]) -> None:
    """Note what an operation does. ``counts`` has the number of trials of each study."""
    match operation["op_code"]:
        case Operation.CREATE_STUDY:
            found.studies.append(operation["study_name"])
        case Operation.SET_STUDY_ATTRIBUTE:
            name = found.studies[operation["study_id"]]
            found.of_study.setdefault(name, {}).update(operation["user_attr"])
        case Operation.CREATE_TRIAL:
            study = operation["study_id"]
            number = counts[study] = counts.get(study, -1) + 1
            found.trials.append((number, {}))
        case Operation.SET_TRIAL_ATTRIBUTE:
            found.trials[operation["trial_id"]][1].update(operation["user_attr"])
