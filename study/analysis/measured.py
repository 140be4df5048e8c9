"""Scores of arms by a measure that is no mean over questions, from stored answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from study.statistics.resampled import REPLICATES, ResampledScores
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import TrialRecord
from trainables.measures.common.deciding import Deciding
from trainables.measures.common.measure import Weighted, weighted

if TYPE_CHECKING:
    from trainables.data.common.dataset import Example

REPEATED = 1_000
"""Number of times that images are resampled where a measure scores all answers anew each time."""


def given(study_folder: StudyFolder, record: TrialRecord, name: str) -> list[str]:
    """Answers of a trial on the split ``name``."""
    found: list[str] = answers.read(study_folder, record.spec.id, name)["answer"].to_pylist()
    return found


def resampled(
    study_folder: StudyFolder,
    confirmed: Mapping[str, Sequence[TrialRecord]],
    by: Deciding,
    name: str,
    examples: Sequence[Example],
) -> ResampledScores:
    """The arms' answers on the split ``name``, scored by a measure.

    Args:
        study_folder: the study's files.
        confirmed: arm -> its complete confirmations; arms without any are left out.
        by: the measure.
        name: name under which answers are stored.
        examples: the questions that were answered, in the same order.
    """
    places = by.places(examples)
    asked = [examples[i] for i in places]
    found: dict[str, list[list[str]]] = {}
    for arm, records in confirmed.items():
        for record in records:
            all_given = given(study_folder, record, name)
            found.setdefault(arm, []).append([all_given[i] for i in places])

    def make(several: Sequence[Sequence[str]]) -> Weighted:
        joined = [answer for one in several for answer in one]
        return weighted(by.measure, by.column, joined, asked * len(several))

    replicates = REPLICATES if by.measure.weighted else REPEATED
    return ResampledScores(found, [e.unit for e in asked], make, replicates=replicates)
