"""How sure the answer is: intervals and differences by a hierarchical bootstrap.

Two things make a score uncertain: which questions were asked (those about one image go together)
and which seeds were drawn. Both are resampled; two arms are compared on the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
REPLICATES = 10_000
LEVEL = 95
"""Percent of the intervals."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95% interval; percent or percentage points."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far arm ``first`` is above ``second`` on the test split."""

    first: str
    second: str
    difference: Estimate

    @property
    def told_apart(self) -> bool:
        """The interval excludes zero."""
        return self.difference.low > 0 or self.difference.high < 0

    def sentence(self) -> str:
        """What may be said of the pair."""
        d = self.difference
        first, second = (self.first, self.second) if d.mean >= 0 else (self.second, self.first)
        low, high = sorted((abs(d.low), abs(d.high)))
        if self.told_apart:
            return (
                f"{first} is better than {second} by {abs(d.mean):.1f} points "
                f"({LEVEL}% interval {low:.1f} to {high:.1f})."
            )
        sign = 1 if d.mean >= 0 else -1
        low, high = sorted((sign * d.low, sign * d.high))
        return (
            f"{first} and {second} cannot be told apart: {first} is {abs(d.mean):.1f} points "
            f"higher, {LEVEL}% interval {low:+.1f} to {high:+.1f}."
        )


def estimate(correct_SQ: Array, images_Q: Sequence[str]) -> Estimate:
    """Accuracy in percent over S seeds and Q questions.

    Args:
        correct_SQ: 1 where a seed's model answered a question correctly.
        images_Q: each question's image: questions about one image are resampled together.
    """
    bootstrapped_R = _replicates(correct_SQ, images_Q, np.random.default_rng(0))
    return _estimate(float(correct_SQ.mean()), bootstrapped_R)


def compare(
    first: str, first_SQ: Array, second: str, second_SQ: Array, images_Q: Sequence[str]
) -> Comparison:
    """Difference in accuracy, first minus second, in percentage points; see ``estimate``.

    The questions of both arms are resampled together (they are the same), their seeds apart.
    """
    drawn = np.random.default_rng(0)
    weights_RC, first_SC, sizes_C = _clusters(first_SQ, images_Q, drawn)
    _, second_SC, _ = _clusters(second_SQ, images_Q, drawn, draw=False)
    difference_R = _means(weights_RC, first_SC, sizes_C, drawn) - _means(
        weights_RC, second_SC, sizes_C, drawn
    )
    mean = float(first_SQ.mean() - second_SQ.mean())
    return Comparison(first=first, second=second, difference=_estimate(mean, difference_R))


def _replicates(correct_SQ: Array, images_Q: Sequence[str], drawn: np.random.Generator) -> Array:
    weights_RC, correct_SC, sizes_C = _clusters(correct_SQ, images_Q, drawn)
    return _means(weights_RC, correct_SC, sizes_C, drawn)


def _clusters(
    correct_SQ: Array, images_Q: Sequence[str], drawn: np.random.Generator, *, draw: bool = True
) -> tuple[Array, Array, Array]:
    """Questions summed by image (C clusters), and how often each is in each of R resamples."""
    _, cluster_Q = np.unique(np.asarray(images_Q), return_inverse=True)
    clusters = int(cluster_Q.max()) + 1
    sizes_C = np.bincount(cluster_Q, minlength=clusters)
    correct_SC = np.stack([np.bincount(cluster_Q, row, clusters) for row in correct_SQ])
    share = np.full(clusters, 1 / clusters)
    weights_RC = drawn.multinomial(clusters, share, size=REPLICATES) if draw else sizes_C
    return weights_RC, correct_SC, sizes_C


def _means(weights_RC: Array, correct_SC: Array, sizes_C: Array, drawn: Any) -> Array:
    """Accuracy of each resample of images and seeds."""
    seeds = len(correct_SC)
    weights_RS = drawn.multinomial(seeds, np.full(seeds, 1 / seeds), size=REPLICATES) / seeds
    accuracy_RS = (weights_RC @ correct_SC.T) / (weights_RC @ sizes_C)[:, None]
    means_R: Array = (weights_RS * accuracy_RS).sum(1)
    return means_R


def _estimate(mean: float, replicates_R: Array) -> Estimate:
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(replicates_R, [tail, 100 - tail])
    return Estimate(mean=100 * mean, low=100 * float(low), high=100 * float(high))
