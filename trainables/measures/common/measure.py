"""The contract of a measure: a file of ``trainables/measures`` that defines ``MEASURE``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trainables.data.common.dataset import Example

Kind = Literal["all", "open", "report", "options"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number of a measure, as it appears in results, tables, the report and MLflow."""

    title: str = ""
    """Heading of the column in tables and in the report. If it is empty, the number appears only in
    ``results.json`` and MLflow."""
    unit: str = "percent"
    """Last part of the number's name in MLflow, as in ``token_f1_percent``; empty for a number
    without a unit."""
    of: Literal["questions", "options", "reports"] = "questions"
    """Examples that the number describes; ``options`` are questions that have some. Tables show the
    column if the dataset has such examples."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of answers: the examples that it is for, its numbers, and how they are computed."""

    of: Kind
    """Examples that ``score`` is given: all of them, open questions, reports, or questions with
    options."""
    columns: Mapping[str, Column]
    """Name -> column of each number. No two measures share a name."""
    score: Callable[[Sequence[str], Sequence[Example]], Mapping[str, float]]
    """Computes the numbers from predictions and their examples, at least one and in the same order.
    It gives a value for each of ``columns``, nan where there is nothing to measure."""


def of_kind(kind: Kind, examples: Sequence[Example]) -> list[int]:
    """Indices of the examples that a measure of ``kind`` is for."""
    if kind == "options":
        return [i for i, e in enumerate(examples) if e.options]
    return [i for i, e in enumerate(examples) if kind == "all" or e.answer_type == kind]


def nothing(measure: Measure) -> dict[str, float]:
    """The numbers of a measure for a split that has no example for it: all nan."""
    return dict.fromkeys(measure.columns, math.nan)
