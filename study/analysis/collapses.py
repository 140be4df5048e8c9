"""Seeds with which an arm's training collapses, and what the arm scores with the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from study.analysis.arm_scores import credits_of
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
    data_of: Callable[[TrialRecord], Dataset],
) -> set[str]:
    """Ids of the complete confirmations whose answers hardly depend on the question. ``data_of``
    gives the data on which a trial was tested."""

    def given(record: TrialRecord) -> list[str]:
        return list(answers.read(study_folder, record.spec.id, "test")["answer"].to_pylist())

    return {r.spec.id for r in confirmed if has_collapsed(data_of(r).test, given(r))}


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
