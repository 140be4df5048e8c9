"""How much an arm gains by the image, and how its confidence compares with its accuracy.

A model that scores as well with a blank image has not looked at the image
(``trainables.training.blind``). The gain is a difference between two answers of the same model to
the same question, so its interval is that of one arm: over images, and seeds or searches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from study.analysis.arm_scores import alike, credits_of
from study.analysis.result_types import BlindScore, Calibration, ReliabilityBin
from study.statistics.resampled import ResampledScores
from study.statistics.uncertainty import LEVEL, Scores
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import TrialRecord
from trainables.measures.common.measure import Weighted, of_kind, weighted
from trainables.measures.likelihoods import BINS, MEASURE, bins, confidences, ece_by_chance
from trainables.training.blind import BLIND

if TYPE_CHECKING:
    from trainables.data.common.dataset import Example

Array = np.ndarray[Any, Any]


def blind_scores(
    study_folder: StudyFolder,
    records: Sequence[TrialRecord],
    examples: Sequence[Example],
    searches: int = 1,
) -> dict[str, BlindScore]:
    """Way of ``BLIND`` -> score of an arm on test questions asked so, and what its images gain it;
    empty if a confirmation was made by a version that did not ask so."""
    asked = [{name.rpartition(".")[0] for name in record.scores} for record in records]
    if not records or any(not ways.issuperset(BLIND) for ways in asked):
        return {}
    groups = [example.unit for example in examples]
    own_SQ = credits_of(study_folder, records, "test", searches)
    found = {}
    for way in BLIND:
        blind_SQ = credits_of(study_folder, records, way, searches)
        gain = {"image": own_SQ - blind_SQ, "none": np.zeros_like(own_SQ)}
        found[way] = BlindScore(
            score=float(100 * blind_SQ.mean()),
            gain=Scores(gain, groups, moderates=False).difference("image", "none").estimate,
        )
    return found


def calibration(
    study_folder: StudyFolder,
    records: Sequence[TrialRecord],
    examples: Sequence[Example],
    searches: int = 1,
) -> Calibration | None:
    """How the confidence of an arm in closed answers compares with their accuracy, over the
    answers of all its seeds; None if there are no such questions, or no likelihoods. The interval
    of the error is that of models that are independent: of several searches the first of each."""
    places = of_kind(MEASURE.of, examples)
    asked = [examples[i] for i in places]
    if not asked or not records or any("test.ece" not in record.scores for record in records):
        return None
    confidence, right, given = [], [], {}
    for record in records:
        table = answers.read(study_folder, record.spec.id, "test")
        likelihoods = table[answers.LIKELIHOODS].to_pylist()
        given[record.spec.id] = [likelihoods[i] for i in places]
        confidence_Q, right_Q = confidences(given[record.spec.id], asked)
        confidence.append(confidence_Q)
        right.append(right_Q)
    confidence_N, right_N = np.concatenate(confidence), np.concatenate(right)
    bin_N = bins(confidence_N)

    def make(several: Sequence[Sequence[Any]]) -> Weighted:
        joined = [one for model in several for one in model]
        return weighted(MEASURE, "ece", joined, asked * len(several))

    first = [given[same[0].spec.id] for same in alike(records, searches)]
    scores = ResampledScores({"arm": first}, [example.unit for example in asked], make)
    error = scores.above_zero("arm", ece_by_chance(first, asked, 50 + LEVEL / 2))
    return Calibration(
        error=float(np.mean([record.scores["test.ece"] for record in records])),
        low=error.low,
        high=error.high,
        bins=tuple(
            ReliabilityBin(
                confidence=float(100 * confidence_N[bin_N == b].mean()),
                accuracy=float(100 * right_N[bin_N == b].mean()),
                answers=int((bin_N == b).sum()),
            )
            for b in range(BINS)
            if (bin_N == b).any()
        ),
    )
