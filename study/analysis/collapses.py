"""Seeds with which an arm's training collapses, and what the arm scores with the others.

A training collapsed if it diverged, if its answers hardly depend on the question, or if its
validation loss ended more than ``RISE`` times above the lowest of its own before and above that of
the search trial with the same settings. The last is for models that answer nonsense of several
kinds. Two losses are compared, since all trainings of an arm may end above their lowest if they
are too long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from study.analysis.arm_scores import credits_of
from study.config.budget import RISE
from study.statistics.rates import exact_rate
from study.statistics.score_types import Collapse
from study.statistics.uncertainty import Scores
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome, TrialRecord
from trainables.measures.common.baselines import has_collapsed

if TYPE_CHECKING:
    from trainables.data.common.dataset import Dataset


def collapsed(
    study_folder: StudyFolder,
    confirmed: Sequence[TrialRecord],
    searched: Sequence[TrialRecord],
    data_of: Callable[[TrialRecord], Dataset],
) -> set[str]:
    """Ids of the complete confirmations that collapsed. ``searched`` are the search trials of their
    arm, and ``data_of`` gives the data on which a trial was tested."""
    losses = {_settings(record): record.loss for record in searched}

    def given(record: TrialRecord) -> list[str]:
        return list(answers.read(study_folder, record.spec.id, "test")["answer"].to_pylist())

    return {
        record.spec.id
        for record in confirmed
        if ended_high(record, losses.get(_settings(record), float("inf")))
        or has_collapsed(data_of(record).test, given(record))
    }


def ended_high(record: TrialRecord, with_other_seed: float) -> bool:
    """Whether a trial's validation loss ended too high for a training that went well.

    Args:
        record: a trial that is complete.
        with_other_seed: last loss of the search trial with its settings; infinite if unknown.
    """
    lowest = min((rung.validation_loss for rung in record.rungs), default=float("inf"))
    return record.loss > RISE * max(lowest, with_other_seed)


def _settings(record: TrialRecord) -> str:
    """What a search trial and its confirmations have in common, as a text."""
    return json.dumps([record.spec.arm, dict(record.spec.parameters)], sort_keys=True)


def rate(
    study_folder: StudyFolder,
    tested: Sequence[TrialRecord],
    lost: Collection[str],
    dataset: Dataset | None,
    searches: int = 1,
) -> Collapse | None:
    """How often an arm's training collapses; None if none of its confirmations completed or
    diverged.

    Args:
        study_folder: the study's files.
        tested: the arm's confirmations.
        lost: ids of its confirmations that ``collapsed`` returned.
        dataset: data with the questions that were answered; None if these were not the same in all
            confirmations, so that there is no score of those that did not collapse.
        searches: independent searches of each arm.
    """
    complete = [record for record in tested if record.outcome is Outcome.COMPLETE]
    diverged = sum(record.outcome is Outcome.DIVERGED for record in tested)
    seeds, events = len(complete) + diverged, diverged + len(lost)
    if not seeds:
        return None
    well = [record for record in complete if record.spec.id not in lost]
    otherwise = None
    if events and well and dataset is not None:
        credits_SQ = credits_of(study_folder, well, "test", searches)
        units = [example.unit for example in dataset.test]
        otherwise = Scores({"": credits_SQ}, units).score("")
    return Collapse(
        seeds=seeds, collapsed=events, rate=exact_rate(events, seeds), otherwise=otherwise
    )
