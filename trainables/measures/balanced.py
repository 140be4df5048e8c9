"""Balanced accuracy and macro F1 of closed questions, in which rare answers count like others.

A class is a true answer, normalised, or the text of an option. Balanced accuracy is the mean recall
of the classes (Brodersen et al. 2010, doi 10.1109/ICPR.2010.764), macro F1 the mean of their F1
(Sokolova and Lapalme 2009, doi 10.1016/j.ipm.2009.03.002). An answer that is no class is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Array, Column, Measure, Weighted
from trainables.measures.common.normalize import normalize
from trainables.measures.common.options import named, true_option


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Both numbers in percent."""
    once = np.ones((1, len(examples)))
    return {name: float(of(once)[0]) for name, of in weighted(predicted, examples).items()}


def weighted(predicted: Sequence[str], examples: Sequence[Example]) -> Mapping[str, Weighted]:
    """Both numbers in percent, for any weighting of the questions. A class whose questions all have
    weight 0 does not count."""
    true = [_true(example) for example in examples]
    given = [_given(answer, example) for answer, example in zip(predicted, examples, strict=True)]
    classes = {name: place for place, name in enumerate(dict.fromkeys(true))}
    true_QK, given_QK = (np.zeros((len(true), len(classes))) for _ in range(2))
    true_QK[range(len(true)), [classes[name] for name in true]] = 1
    for question, name in enumerate(given):
        if name in classes:
            given_QK[question, classes[name]] = 1

    def counts(weights_RQ: Array) -> tuple[Array, Array, Array]:
        """Weight of the questions that are right, true and given in each class; (R, K) each."""
        return weights_RQ @ (true_QK * given_QK), weights_RQ @ true_QK, weights_RQ @ given_QK

    def balanced_accuracy(weights_RQ: Array) -> Array:
        right_RK, asked_RK, _ = counts(weights_RQ)
        return _mean(right_RK / np.maximum(asked_RK, 1), asked_RK)

    def macro_f1(weights_RQ: Array) -> Array:
        right_RK, asked_RK, said_RK = counts(weights_RQ)
        return _mean(2 * right_RK / np.maximum(asked_RK + said_RK, 1), asked_RK)

    return {"balanced_accuracy": balanced_accuracy, "macro_f1": macro_f1}


def _mean(value_RK: Array, asked_RK: Array) -> Array:
    """Mean in percent over the classes that are asked about; (R,)."""
    there_RK = asked_RK > 0
    mean_R: Array = 100 * (value_RK * there_RK).sum(1) / np.maximum(there_RK.sum(1), 1)
    return mean_R


def _true(example: Example) -> str:
    return normalize(example.options[true_option(example)] if example.options else example.answer)


def _given(answer: str, example: Example) -> str | None:
    """The class that an answer names; None if it names no option of a question that has some."""
    if not example.options:
        return normalize(answer)
    place = named(answer, example)
    return None if place is None else normalize(example.options[place])


MEASURE = Measure(
    of="closed",
    columns={"balanced_accuracy": Column(), "macro_f1": Column()},
    score=score,
    weighted=weighted,
)
