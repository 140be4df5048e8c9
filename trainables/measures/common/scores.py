"""Scores of a split: the numbers of every measure, each for the examples that it is for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from trainables import registry
from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure, nothing, of_kind

VERSION = 2
"""Version of the rules by which answers are scored. Raise it with every change after which an
answer may have another score: what was scored by an older version is then scored anew from the
stored answers, so that no study mixes two rules. Version 2 reads texts of all scripts
(``scripts``)."""


@cache
def measures() -> dict[str, Measure]:
    """All measures, by the names of their files."""
    return {name: registry.MEASURES.find(name).MEASURE for name in registry.MEASURES.names()}


@cache
def columns() -> dict[str, Column]:
    """The columns of all measures, by their names in results."""
    return {name: column for m in measures().values() for name, column in m.columns.items()}


def score(
    examples: Sequence[Example],
    predictions: Sequence[str],
    likelihoods: Sequence[Sequence[float] | None] | None = None,
) -> dict[str, float]:
    """Score predictions by every measure. ``likelihoods`` has the log-likelihoods of the possible
    answers to the questions of which they are known; None if there are none.

    Returns:
        name of each number -> its value, nan where the split has no example for its measure.
        Numbers of measures for reports, options or likelihoods are left out if there are none.

    Raises:
        ValueError: the numbers of predictions and of examples differ.
    """
    if len(examples) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(examples)} examples")
    found: dict[str, float] = {}
    for measure in measures().values():
        chosen = of_kind(measure.of, examples)
        by_likelihood = measure.takes == "likelihoods"
        given: Sequence[Any] = (likelihoods or ()) if by_likelihood else predictions
        if by_likelihood and not given:
            continue
        if chosen:
            found |= measure.score([given[i] for i in chosen], [examples[i] for i in chosen])
        elif measure.of not in ("report", "options", "choices"):
            found |= nothing(measure)
    return found


def shown_columns(scores: Mapping[str, float]) -> dict[str, str]:
    """Names and titles of the columns that a table of these results shows.

    Columns for questions come first, if any questions were asked, then columns for questions with
    options and for reports, if any were. ``scores`` are those of the majority baseline.
    """
    asked = {
        "questions": not (math.isnan(scores["yes_no"]) and math.isnan(scores["other"])),
        "options": "choice" in scores,
        "reports": not math.isnan(scores["report"]),
    }
    if not any(asked.values()):
        asked["questions"] = True
    return {
        name: column.title
        for of in ("questions", "options", "reports")
        for name, column in columns().items()
        if asked[of] and column.of == of and column.title
        if of == "questions" or not math.isnan(scores.get(name, math.nan))
    }


def logged_name(name: str) -> str:
    """Name of a score in MLflow, with its unit: ``test.overall_percent``.

    ``name`` may be prefixed with what was scored, separated by a point.
    """
    column = columns().get(name.rpartition(".")[2], Column())
    return f"{name}_{column.unit}" if column.unit else name
