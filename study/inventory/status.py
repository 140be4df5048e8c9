"""Status of one study: its arms, trials, rungs and devices, and what time and devices are left.

All of it is made from the study's journal, so that it is the same whether the study runs here, on
another machine or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.config import goals, spending_limit
from study.config.begun_study import BegunStudy
from study.config.budget import reached
from study.config.spending_limit import SpendingLimit
from study.inventory.expected_trials import (
    confirmations,
    rungs_of,
    search_trials,
    untuned_models,
)
from study.inventory.overview import State, StudyOverview, begun_of, journal_of, overview
from study.inventory.recorded import mlflow_addresses
from study.search.best_trials import BestTrials
from study.storage.journal_reader import JournalContent, Session
from study.storage.study_files import StudyFiles
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind
from trainables.errors import BadInput
from trainables.secrecy import command_line


@dataclass(frozen=True, kw_only=True)
class ArmStatus:
    """Search trials of one arm."""

    arm: str
    """Name of the arm."""
    running: int
    """Trials that run now or, of a study that does not run, that wait to go on."""
    ended: Mapping[Outcome, int]
    """Outcome -> number of trials."""
    reached: Mapping[int, int]
    """Rung, in examples -> number of trials that have reported it."""
    best: TrialRecord | None
    """The best trial so far; None before the first rung."""


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """Status of one study."""

    overview: StudyOverview
    space: str
    model: str
    data: str
    searched: int
    """Search trials that have ended."""
    search_trials: int | None
    """Search trials that there will be; None if that is not known."""
    confirmed: int
    """Trials of the confirmation that have ended, the untuned model among them."""
    confirmations: int
    """Trials of the confirmation that there will be."""
    arms: tuple[ArmStatus, ...]
    all_arms: tuple[str, ...]
    """Names of all arms of the space, by which arms have their colours."""
    running: tuple[TrialRecord, ...]
    """Trials that have begun and not ended, the oldest first."""
    session: Session | None
    """The last session that has begun trials; None if none has."""
    starting: bool
    """Whether a driver has taken the study and has begun no trial yet. Then ``session`` is an
    earlier one."""
    last_heard: float | None
    """Time at which a trial last began, reported or ended, in seconds since 1970; None before the
    first."""
    mlflow: tuple[str, ...]
    """Addresses of the MLflow stores in which sessions recorded the study, that of the last session
    last, without secrets; empty for the one in the storage folder."""
    resume: str
    """Shell command that goes on with the study."""
    use: float | None
    """Share of the devices' time, since the session began, that trials took; None if the study does
    not run."""
    seconds: float
    """Seconds that the study has run."""
    seconds_left: float | None
    """Seconds to the study's end, by ``--budget`` or the pace of this session; None if there is no
    pace yet, or the study does not run."""
    device_seconds: float
    """Device-seconds that all trials have taken."""
    limit: SpendingLimit
    """What the study may spend."""


def status(files: StudyFiles) -> StudyStatus:
    """Status of a study.

    Raises:
        BadInput: the study was not begun, or it cannot be read.
    """
    driver, row = files.driver(), overview(files)
    if files.half_made and row.state is State.RUNNING:
        raise BadInput(f"study {files.name!r} is about to begin, and has no trials yet")
    if files.half_made:
        remove = command_line("study.delete", [files.name, *files.study_folder.options])
        raise BadInput(
            f"study {files.name!r} has no study.json: it was killed before it was begun, or while "
            f"it was deleted; {remove} removes it"
        )
    begun, journal, now = begun_of(files), journal_of(files), time.time()
    runs = row.state is State.RUNNING
    starting = runs and not _is_of(journal.session, driver)
    session = journal.session if runs and not starting else None
    seconds = session.seconds + now - session.began if session else journal.seconds
    names = list(begun.arms) if begun.run is None else [a for a in begun.arms if a in begun.run]
    confirming = [r for r in journal.records if r.spec.kind is not Kind.SEARCH]
    searching = [r for r in journal.records if r.spec.kind is Kind.SEARCH]
    limit = spending_limit.parse(begun.settings.allowance)
    known = StudyStatus(
        overview=row,
        space=begun.settings.space,
        model=begun.settings.model,
        data=begun.settings.data,
        searched=_ended(searching),
        search_trials=search_trials(begun, journal),
        confirmed=_ended(confirming),
        confirmations=untuned_models(begun, journal) + confirmations(begun, journal),
        arms=_arms(begun, searching, names),
        all_arms=tuple(begun.all_arms),
        running=tuple(r for r in journal.records if r.outcome is None),
        session=journal.session,
        starting=starting,
        last_heard=_last_heard(journal),
        mlflow=mlflow_addresses(files, journal),
        resume=command_line("study.launch", ["--resume", files.name, *files.study_folder.options]),
        use=_use(journal, session, now),
        seconds=seconds,
        seconds_left=_left(begun, journal, session, limit, seconds, now) if session else None,
        device_seconds=sum(record.seconds for record in journal.records),
        limit=limit,
    )
    return known


def _is_of(session: Session | None, driver: str | None) -> bool:
    """Whether a session is that of the driver that runs the study; a session of an earlier version
    may be."""
    return session is not None and (not session.driver or session.driver == driver)


def _last_heard(journal: JournalContent) -> float | None:
    """Time at which a trial last began, reported or ended."""
    times = [
        record.ended_at or max([record.started_at, *(rung.reported_at for rung in record.rungs)])
        for record in journal.records
    ]
    return max(times, default=None)


def _ended(records: Sequence[TrialRecord]) -> int:
    return sum(record.outcome is not None for record in records)


def _arms(
    begun: BegunStudy, records: Sequence[TrialRecord], names: Sequence[str]
) -> tuple[ArmStatus, ...]:
    """Status of each arm by its search trials."""
    rungs = rungs_of(begun, records)
    limits = goals.parse_limits(begun.settings.under)
    best = BestTrials({record.spec.id: record for record in records}, limits, rungs).of_arm
    found = []
    for name in names:
        own = [record for record in records if record.spec.arm == name]
        furthest = [reached(rungs, record.examples_seen) for record in own]
        found.append(
            ArmStatus(
                arm=name,
                running=sum(record.outcome is None for record in own),
                ended={o: sum(record.outcome is o for record in own) for o in Outcome},
                reached={rung: sum(seen >= rung for seen in furthest) for rung in rungs},
                best=best.get(name),
            )
        )
    return tuple(found)


def _use(journal: JournalContent, session: Session | None, now: float) -> float | None:
    """Share of the devices' time that trials took in a session, up to their last reports."""
    if session is None:
        return None
    taken = 0.0
    for record in journal.records:
        before = [rung.seconds for rung in record.rungs if rung.reported_at < session.began]
        if record.ended_at is None or record.ended_at >= session.began:
            taken += record.seconds - (before[-1] if before else 0.0)
    return taken / max((now - session.began) * session.devices, 1e-9)


def _left(
    begun: BegunStudy,
    journal: JournalContent,
    session: Session,
    limit: SpendingLimit,
    seconds: float,
    now: float,
) -> float | None:
    """Seconds to the end of a study that runs, by ``--budget`` while it searches, and else by the
    examples that are left and the pace of the session."""
    confirming = any(record.spec.kind is not Kind.SEARCH for record in journal.records)
    searches = not (journal.search_over or confirming)
    if limit.timed and searches:
        if limit.seconds is not None:
            return max(limit.seconds - seconds, 0.0)
        used, spent = _use(journal, session, now), sum(r.seconds for r in journal.records)
        left = max((limit.device_seconds or 0.0) - spent, 0.0)
        return left / (used * session.devices) if used else None
    trained = 0
    for record in journal.records:
        before = [rung.examples_seen for rung in record.rungs if rung.reported_at < session.began]
        trained += record.examples_seen - (before[-1] if before else 0)
    rungs, in_all = rungs_of(begun, journal.records), search_trials(begun, journal)
    if not trained or in_all is None or not rungs:
        return None
    ended = [r for r in journal.records if r.outcome is not None]
    searched = [record.examples_seen for record in ended if record.spec.kind is Kind.SEARCH]
    confirmed = sum(record.examples_seen for record in ended if record.spec.kind is Kind.CONFIRM)
    typical = sum(searched) / len(searched) if searched else rungs[-1] / 2
    ahead = (in_all - len(searched)) * typical + confirmations(begun, journal) * rungs[-1]
    ahead -= confirmed + sum(r.examples_seen for r in journal.records if r.outcome is None)
    # What passes before the first trial passes once.
    here = [r.started_at for r in journal.records if r.started_at >= session.began]
    return max(ahead, 0.0) * (now - min(here, default=session.began)) / trained
