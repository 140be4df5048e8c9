"""The contract of a measure: a file of ``trainables/measures`` that defines ``MEASURE``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainables.data.common.dataset import Example
from trainables.measures.common.options import choices_of

Kind = Literal["all", "open", "closed", "report", "options", "choices"]
Array = np.ndarray[Any, Any]
Weighted = Callable[[Array], Array]
"""Function that gives a number of a measure for several weightings of the same questions: from
weights of shape (R, Q), whole numbers from 0 on, to values of shape (R,)."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number of a measure, as it appears in results, tables, the report and MLflow."""

    title: str = ""
    """Heading of the column in tables and in the report. If it is empty, the number appears only in
    ``results.json`` and MLflow."""
    unit: str = "percent"
    """Last part of the number's name in MLflow, as in ``token_f1_percent``; empty for a number
    without a unit."""
    decides: bool = True
    """Whether a study may be decided by it (``--measure``): it is a percentage, and more is
    better."""
    of: Literal["questions", "options", "reports"] = "questions"
    """Examples that the number describes; ``options`` are questions that have some. Tables show the
    column if the dataset has such examples."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of answers: the examples that it is for, its numbers, and how they are computed."""

    of: Kind
    """Examples that ``score`` is given: all of them, open questions, closed ones, reports,
    questions with options, or questions whose possible answers are known (``choices_of``)."""
    takes: Literal["answers", "likelihoods"] = "answers"
    """What ``score`` is given of each example beside it: the answer, or, of a measure of
    ``choices``, the log-likelihoods of its possible answers. These are there for the test split."""
    columns: Mapping[str, Column]
    """Name -> column of each number. No two measures share a name."""
    score: Callable[[Sequence[Any], Sequence[Example]], Mapping[str, float]]
    """Computes the numbers from predictions and their examples, at least one and in the same order.
    It gives a value for each of ``columns``, nan where there is nothing to measure."""
    weighted: Callable[[Sequence[Any], Sequence[Example]], Mapping[str, Weighted]] | None = None
    """Makes, from the same arguments, what gives each of ``columns`` for any weighting of the
    questions. A measure may do without: then questions are repeated, which takes longer."""


def of_kind(kind: Kind, examples: Sequence[Example]) -> list[int]:
    """Indices of the examples that a measure of ``kind`` is for."""
    if kind == "options":
        return [i for i, e in enumerate(examples) if e.options]
    if kind == "choices":
        return [i for i, e in enumerate(examples) if choices_of(e)[0]]
    return [i for i, e in enumerate(examples) if kind == "all" or e.answer_type == kind]


def nothing(measure: Measure) -> dict[str, float]:
    """The numbers of a measure for a split that has no example for it: all nan."""
    return dict.fromkeys(measure.columns, math.nan)


def weighted(
    measure: Measure, column: str, predicted: Sequence[Any], examples: Sequence[Example]
) -> Weighted:
    """What gives a measure's ``column`` for any weighting of its questions, which are those that
    ``of_kind`` chooses: to resample a statistic that is no mean over questions."""
    if measure.weighted is not None:
        return measure.weighted(predicted, examples)[column]

    def repeat(weights_RQ: Array) -> Array:
        return np.array([of(np.repeat(range(len(row)), row.astype(int))) for row in weights_RQ])

    def of(places: Array) -> float:
        if not len(places):
            return math.nan
        return measure.score([predicted[i] for i in places], [examples[i] for i in places])[column]

    return repeat
