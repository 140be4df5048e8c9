"""Scores of arms by a measure that is no mean over questions, from stored answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from study.statistics.resampled import REPLICATES, ResampledScores
from study.storage import answers
from study.storage.study_folder import StudyFolder
from trainables.errors import BadInput
from trainables.measures.common.baselines import majority_predictions
from trainables.measures.common.deciding import Deciding
from trainables.measures.common.measure import Weighted, weighted
from trainables.measures.common.options import choices_of

if TYPE_CHECKING:
    from trainables.data.common.dataset import Example

REPEATED = 1_000
"""Number of times that images are resampled where a measure scores all answers anew each time."""


def given(study_folder: StudyFolder, trial_id: str, name: str, by: Deciding) -> list[Any] | None:
    """What a measure takes of a trial on the split ``name``: answers, or likelihoods of the
    possible ones; None if the trial's version did not store it."""
    table = answers.read(study_folder, trial_id, name)
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
    confirmed: Mapping[str, Sequence[str]],
    by: Deciding,
    name: str,
    examples: Sequence[Example],
) -> ResampledScores:
    """The arms' answers on the split ``name``, scored by a measure.

    Args:
        study_folder: the study's files.
        confirmed: arm -> ids of its complete confirmations; arms without any are left out.
        by: the measure.
        name: name under which answers are stored.
        examples: the questions that were answered, in the same order.

    Raises:
        BadInput: the measure takes likelihoods, and a trial has not stored them.
    """
    found: dict[str, list[list[Any]]] = {}
    for arm, trials in confirmed.items():
        for trial in trials:
            found.setdefault(arm, []).append(known(study_folder, trial, name, by))
    return resampled_answers(found, by, examples)


def known(study_folder: StudyFolder, trial_id: str, name: str, by: Deciding) -> list[Any]:
    """What ``given`` returns, where a measure that decides needs it.

    Raises:
        BadInput: the measure takes likelihoods, and the trial has not stored them.
    """
    found = given(study_folder, trial_id, name, by)
    if found is None:
        raise BadInput(
            f"--measure {by.column}: trial {trial_id} has stored answers without likelihoods of "
            "the possible ones, as an earlier version did"
        )
    return found


def resampled_answers(
    found: Mapping[str, Sequence[Sequence[Any]]], by: Deciding, examples: Sequence[Example]
) -> ResampledScores:
    """What the models of each arm gave to all ``examples``, scored by a measure; ``found`` has it
    by arm and model."""
    places = by.places(examples)
    asked = [examples[i] for i in places]

    def make(several: Sequence[Sequence[Any]]) -> Weighted:
        joined = [answer for one in several for answer in one]
        return weighted(by.measure, by.column, joined, asked * len(several))

    replicates = REPLICATES if by.measure.weighted else REPEATED
    picked = {arm: [[one[i] for i in places] for one in some] for arm, some in found.items()}
    return ResampledScores(picked, [e.unit for e in asked], make, replicates=replicates)
