"""Numbers of trials that a study will have, by what it was begun with and its journal."""

from __future__ import annotations

from collections.abc import Sequence

from study.config import goals, spending_limit
from study.config.begun_study import BegunStudy
from study.config.budget import levels
from study.search.best_trials import BestTrials
from study.search.unsteady_arms import UnsteadyArms
from study.storage.journal_reader import JournalContent
from study.trials.record import TrialRecord
from study.trials.spec import Kind


def trials_in_all(begun: BegunStudy, journal: JournalContent) -> int | None:
    """Trials that a study will have: those of the search, the untuned model, and the confirmations
    of each arm. None if the number of trials is not limited, or was not noted."""
    searched = search_trials(begun, journal)
    if searched is None:
        return None
    return searched + untuned_models(begun, journal) + confirmations(begun, journal)


def confirmations(begun: BegunStudy, journal: JournalContent) -> int:
    """Confirmations that a study will have, by its search so far."""
    arms = begun.arms if begun.run is None else begun.run
    once, diverged, collapsed = (
        begun.settings.seeds,
        begun.times_if_diverged,
        begun.times_if_collapsed,
    )
    if max(diverged, collapsed) == 1:
        return len(arms) * once
    records = {record.spec.id: record for record in journal.records}
    limits, rungs = goals.parse_limits(begun.settings.under), rungs_of(begun, journal.records)
    best = BestTrials(records, limits, rungs).of_arm.values()
    unsteady = UnsteadyArms(begun.settings.times_searched, rungs, journal.records)
    times = unsteady.times(best, if_diverged=diverged, if_collapsed=collapsed)
    more = sum(each - 1 for each in times.values()) * begun.settings.times_searched
    return (len(arms) + more) * once


def rungs_of(begun: BegunStudy, records: Sequence[TrialRecord]) -> tuple[int, ...]:
    """Rungs of a study; if its budget was not noted, those of its trials."""
    if begun.budget is not None:
        return levels(begun.budget)
    return tuple(sorted({stop for record in records for stop in record.spec.stops}))


def untuned_models(begun: BegunStudy, journal: JournalContent) -> int:
    """Trials that score the untuned model: one for each split of the data, until others with a
    prompt of their own have begun."""
    there = sum(record.spec.kind is Kind.UNTUNED for record in journal.records)
    return max(there, begun.settings.splits)


def search_trials(begun: BegunStudy, journal: JournalContent) -> int | None:
    """Trials that a study's search will have; None if only time limits them, or if the number was
    not noted."""
    drawn = sum(record.spec.kind is Kind.SEARCH for record in journal.records)
    if journal.search_over or any(r.spec.kind is not Kind.SEARCH for r in journal.records):
        return drawn
    timed = spending_limit.parse(begun.settings.allowance).timed
    return None if timed or begun.budget is None else begun.budget.trials
