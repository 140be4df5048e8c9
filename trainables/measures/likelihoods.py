"""AUROC and calibration of closed answers, from the likelihoods of the answers that are possible.

The probability of an answer is its likelihood among those of all answers that are possible to its
question: yes and no, or the question's options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Array, Column, Measure, Weighted
from trainables.measures.common.options import choices_of

BINS = 10
"""Intervals of confidence, of equal width, in which confidence is compared with accuracy."""
DRAWS = 1_000
"""Draws of what the calibration error is by chance."""


def score(likelihoods: Sequence[Sequence[float]], examples: Sequence[Example]) -> dict[str, float]:
    """Both numbers in percent; AUROC is 50 where all true answers are alike."""
    once = np.ones((1, len(examples)))
    return {name: float(of(once)[0]) for name, of in weighted(likelihoods, examples).items()}


def weighted(
    likelihoods: Sequence[Sequence[float]], examples: Sequence[Example]
) -> Mapping[str, Weighted]:
    """Both numbers in percent, for any weighting of the questions.

    ``likelihoods`` are the log-likelihoods of each question's possible answers, in their order.

    AUROC is the probability that a right answer has a higher probability than a wrong one (Hanley
    and McNeil 1982, doi 10.1148/radiology.143.1.7063747): of yes/no questions, that one whose
    answer is yes has a higher probability of yes; of questions with options, each option counts.
    The expected calibration error (Guo et al. 2017, arXiv 1706.04599) is the mean distance between
    confidence and accuracy over ``BINS`` intervals of confidence.
    """
    chances, questions, right = [], [], []
    for number, (one, example) in enumerate(zip(likelihoods, examples, strict=True)):
        _, true = choices_of(example)
        probability = probabilities(one)
        # Of a yes/no question the two probabilities say the same.
        for place in range(len(one)) if example.options else (0,):
            chances.append(probability[place])
            questions.append(number)
            right.append(place == true)
    values, level_P = np.unique(chances, return_inverse=True)
    order = np.argsort(level_P, kind="stable")
    starts = np.searchsorted(level_P[order], np.arange(len(values)))
    question_P, right_P = np.array(questions)[order], np.array(right, bool)[order]

    def auroc(weights_RQ: Array) -> Array:
        weights_RP = weights_RQ[:, question_P]
        true_RV = np.add.reduceat(weights_RP * right_P, starts, axis=1)
        false_RV = np.add.reduceat(weights_RP * ~right_P, starts, axis=1)
        below_RV = np.cumsum(false_RV, axis=1) - false_RV / 2
        pairs_R = true_RV.sum(1) * false_RV.sum(1)
        higher_R = (true_RV * below_RV).sum(1)
        return np.where(pairs_R > 0, 100 * higher_R / np.maximum(pairs_R, 1), 50.0)

    confidence_Q, right_Q = confidences(likelihoods, examples)
    bin_Q = bins(confidence_Q)
    within_QB = np.eye(BINS)[bin_Q] * (right_Q - confidence_Q)[:, None]

    def ece(weights_RQ: Array) -> Array:
        found: Array = 100 * np.abs(weights_RQ @ within_QB).sum(1) / weights_RQ.sum(1)
        return found

    return {"auroc": auroc, "ece": ece}


def ece_by_chance(
    models: Sequence[Sequence[Sequence[float]]], examples: Sequence[Example], percentile: float
) -> float:
    """Percentile of the mean calibration error, in percent, of models whose confidence is right:
    whether an answer is right is drawn by its own confidence (Bröcker and Smith 2007,
    *Increasing the Reliability of Reliability Diagrams*, doi 10.1175/WAF993.1).

    ``models`` has the ``likelihoods`` that each model gives to the same questions.
    """
    drawn, errors_R = np.random.default_rng(0), np.zeros(DRAWS)
    for likelihoods in models:
        confidence_Q, _ = confidences(likelihoods, examples)
        bin_Q = bins(confidence_Q)
        for draw in range(DRAWS):
            right_Q = drawn.random(len(examples)) < confidence_Q
            apart_B = np.bincount(bin_Q, right_Q - confidence_Q, BINS)
            errors_R[draw] += 100 * np.abs(apart_B).sum() / len(examples) / len(models)
    return float(np.percentile(errors_R, percentile))


def confidences(
    likelihoods: Sequence[Sequence[float]], examples: Sequence[Example]
) -> tuple[Array, Array]:
    """Probability of each question's likeliest answer, and whether that is right; (Q,) each."""
    chances = [probabilities(one) for one in likelihoods]
    right = [
        int(np.argmax(chance)) == choices_of(example)[1]
        for chance, example in zip(chances, examples, strict=True)
    ]
    return np.array([chance.max() for chance in chances]), np.array(right, float)


def probabilities(likelihoods: Sequence[float]) -> Array:
    """Probabilities of the possible answers to one question, which add up to 1."""
    known = np.asarray(likelihoods, float)
    chance = np.exp(known - known.max())
    found: Array = chance / chance.sum()
    return found


def bins(confidence_Q: Array) -> Array:
    """Interval of each confidence, from 0 to ``BINS`` - 1; (Q,)."""
    found: Array = np.minimum((confidence_Q * BINS).astype(int), BINS - 1)
    return found


MEASURE = Measure(
    of="choices",
    takes="likelihoods",
    columns={"auroc": Column(), "ece": Column(decides=False)},
    score=score,
    weighted=weighted,
)
