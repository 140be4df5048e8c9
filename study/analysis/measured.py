"""Scores of arms by a measure that is no mean over questions, from stored answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from study.statistics.resampled import REPLICATES, ResampledScores
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import TrialRecord
from trainables.errors import BadInput
from trainables.measures.common.baselines import majority_predictions
from trainables.measures.common.deciding import Deciding
from trainables.measures.common.measure import Weighted, weighted
from trainables.measures.common.options import choices_of

if TYPE_CHECKING:
    from trainables.data.common.dataset import Example

REPEATED = 1_000
"""Number of times that images are resampled where a measure scores all answers anew each time."""


def given(
    study_folder: StudyFolder, record: TrialRecord, name: str, by: Deciding
) -> list[Any] | None:
    """What a measure takes of a trial on the split ``name``: answers, or likelihoods of the
    possible ones; None if the trial's version did not store it."""
    table = answers.read(study_folder, record.spec.id, name)
    column = answers.LIKELIHOODS if by.measure.takes == "likelihoods" else "answer"
    return table[column].to_pylist() if column in table.schema.names else None


def of_majority(by: Deciding, train: Sequence[Example], examples: Sequence[Example]) -> float:
    """Value of a measure for always giving the most frequent training answer of the answer type,
    to whose likelihoods all possible answers are alike."""
    if by.measure.takes == "likelihoods":
        return by.value([[0.0] * len(choices_of(example)[0]) for example in examples], examples)
    return by.value(majority_predictions(train, examples), examples)


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

    Raises:
        BadInput: the measure takes likelihoods, and a trial has not stored them.
    """
    places = by.places(examples)
    asked = [examples[i] for i in places]
    found: dict[str, list[list[Any]]] = {}
    for arm, records in confirmed.items():
        for record in records:
            all_given = given(study_folder, record, name, by)
            if all_given is None:
                raise BadInput(
                    f"--measure {by.column}: trial {record.spec.id} has stored answers without "
                    "likelihoods of the possible ones, as an earlier version did"
                )
            found.setdefault(arm, []).append([all_given[i] for i in places])

    def make(several: Sequence[Sequence[Any]]) -> Weighted:
        joined = [answer for one in several for answer in one]
        return weighted(by.measure, by.column, joined, asked * len(several))

    replicates = REPLICATES if by.measure.weighted else REPEATED
    return ResampledScores(found, [e.unit for e in asked], make, replicates=replicates)
