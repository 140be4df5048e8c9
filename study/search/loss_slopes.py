"""What a lower validation loss is worth in points of validation accuracy, for each arm.

The slope of all arms is that of a line through their complete trials, accuracy over loss, those of
the lower half of losses: the accuracy that a loss brings is not the same at high losses. An arm's
own slope is that of such a line through its own trials. It is often another one, since accuracy
rises faster the lower the loss is, and an arm of higher loss is on the flatter part.

An arm of few or scattered trials hardly knows its own slope. So what is used lies between the two,
the own slope weighted by how precisely it is known (partial pooling; Gelman & Hill 2007, *Data
Analysis Using Regression and Multilevel/Hierarchical Models*, equation 12.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind

LEAST, OWN = 6, 4
"""Smallest number of trials in the line of all arms, and in that of one arm. An arm's line never
has trials of its upper half, which is on the flatter part."""
SCORE = "validation.overall"
SURE = 2.0
"""Standard errors by which accuracy must rise as loss falls, for losses to become points."""
SMALLEST_RISE = 0.1
"""Points by which accuracy must rise from the highest of the losses to the lowest, by the line
through them, for losses to become points."""
APART = 0.5
"""Standard deviation of arms' slopes around the slope of all, as a share of it."""

Pair = tuple[float, float]
"""Validation loss and accuracy of a complete trial."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Points of validation accuracy that a validation loss lower by 1 brings."""

    value: float
    error: float
    """Standard error of ``value``."""


def points_per_loss(records: Iterable[TrialRecord], arms: Iterable[str]) -> dict[str, Slope]:
    """Arm -> its slope near its best trials. Empty if too few trials of the search are complete, or
    if it cannot be told from chance that accuracy rises as loss falls."""
    pairs: dict[str, list[Pair]] = {}
    for record in records:
        searched = record.spec.kind is Kind.SEARCH and record.outcome is Outcome.COMPLETE
        if searched and SCORE in record.scores:
            pairs.setdefault(record.spec.arm, []).append((record.loss, record.scores[SCORE]))
    of_all = line(lower([pair for own in pairs.values() for pair in own], LEAST), LEAST)
    if of_all is None:
        return {}
    slope, spread = of_all
    rises = slope.value > SURE * slope.error and slope.value * spread > SMALLEST_RISE
    if not rises:
        return {}
    return {arm: pooled(slope, line(lower(pairs.get(arm, [])), OWN)) for arm in arms}


def lower(pairs: Sequence[Pair], least: int = 0) -> list[Pair]:
    """The half of lower losses, but ``least`` pairs if there are as many."""
    return sorted(pairs)[: max(least, len(pairs) // 2)]


def line(pairs: Sequence[Pair], least: int) -> tuple[Slope, float] | None:
    """Slope of the line through ``pairs``, and the range of their losses; None if there are fewer
    than ``least``."""
    losses, scores = np.array(pairs).reshape(-1, 2).T
    if len(losses) < least or losses.std() < 1e-9:
        return None
    apart = losses - losses.mean()
    slope = float((apart @ scores) / (apart @ apart))
    rest = scores - scores.mean() - slope * apart
    error = float(np.sqrt((rest @ rest) / (len(rest) - 2) / (apart @ apart)))
    return Slope(value=-slope, error=error), float(np.ptp(losses))


def pooled(of_all: Slope, own: tuple[Slope, float] | None) -> Slope:
    """The slope of an arm whose own slope is known so. It is not below zero."""
    spread = APART * of_all.value
    if own is None:
        return of_all
    found, _ = own
    weight = spread**2 / (spread**2 + found.error**2)
    return Slope(
        value=max(weight * found.value + (1 - weight) * of_all.value, 0.0),
        error=float(np.hypot(weight * found.error, (1 - weight) * np.hypot(of_all.error, spread))),
    )
