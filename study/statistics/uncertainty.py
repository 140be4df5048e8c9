"""Uncertainty of scores and of their differences: intervals, p-values, sources of variance.

A score depends on two kinds of chance: which images were asked about (questions about one image go
together) and which seeds were drawn. (An image stands here for whatever questions are drawn
together: their *group*.) Studies in radiology have the same two, cases and readers
(Obuchowski and Rockette 1995, doi 10.1080/03610919508813243); here each arm has readers of its own.

Images are many. They are resampled for the intervals; for the test, the two arms are exchanged on
images that are drawn by lot. Both arms always answer the same questions. Seeds are few. Resampling
three of them makes intervals too narrow by a half, and 3 + 3 trained models can be exchanged in
only 20 ways, so that no p-value falls below 0.1. So the variance between seeds is estimated and
added, with two degrees of freedom for an arm of three seeds, or more where there are arms enough to
moderate each other's (``moderated.py``). Both kinds are joined as in Student's t, with degrees of
freedom after Satterthwaite (1946) and Hillis (2007, doi 10.1002/sim.2532).

A *seed* is a model that was trained independently of the others of its arm. Where an arm was
searched several times, it is all models of one search, and the variance between seeds
includes that between searches.

Resampling knows only the images that are there: for two arms that answer all images alike it gives
an interval of no width, with five images as with five thousand. But if ``n`` images are alike, up
to ``3 / n`` of all images may not be (the rule of three, Hanley and Lippman-Hand 1983, doi
10.1001/jama.1983.03330370053031). While fewer than ``RARE`` images tell two arms apart, the
interval reaches further by that much on both sides; if there are fewer than ``RARE`` images in all,
nothing follows from them. This keeps no pair from being called better: five images that all favour
one arm have a p-value of 2 / 2**5, which is above 0.05.

``python -m tests.benchmarks.coverage`` measures how often these intervals hold the truth, and how
often the test sees a difference where there is none, beside the plain ways to do it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from study.statistics import winner
from study.statistics.moderated import Moderated, moderate
from study.statistics.score_types import Estimate
from study.statistics.variance_components import RARE, VarianceComponents

Array = np.ndarray[Any, Any]
REPLICATES = 10_000
"""Number of times that images are resampled."""
LEVEL = 95
"""Confidence level of the intervals in percent."""
SIGNS = (1, -1, -1, 1)
"""Sign of each arm in a score, in a difference, and in a difference of differences."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of two arms, the first minus the second."""

    estimate: Estimate
    p: float
    """Two-sided p-value: how often chance alone makes as large a difference between equal arms."""
    components: VarianceComponents
    """Variance components of the difference."""


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """The answers of one arm, summed by image."""

    right_SC: Array
    """Credit of each seed's answers about each image."""
    scores_S: Array
    """Accuracy of each seed, as a fraction."""
    above_SC: Array
    """Amount by which an image raises a seed's accuracy, times C; the mean over images is 0."""

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.scores_S)

    @property
    def variance(self) -> float:
        """Variance of accuracy between seeds; 0 for one seed."""
        return float(self.scores_S.var(ddof=1)) if self.seeds > 1 else 0.0

    @property
    def both(self) -> float:
        """Variance between seeds on one image; see ``VarianceComponents``."""
        if self.seeds < 2:
            return 0.0
        apart_SC = self.above_SC - self.above_SC.mean(0)
        free = (self.seeds - 1) * max(self.above_SC.shape[1] - 1, 1)
        return float((apart_SC**2).sum() / free)


class Scores:
    """The answers of some arms to the same questions, with their accuracies and differences.

    Args:
        correct: arm -> credit of each answer of each seed's model, 1 if it is correct; shape
            (S, Q), where each arm may have its own number of seeds S.
        groups_Q: group of each question, such as its image: what is resampled as one.
        replicates: number of times that images are resampled.
        moderates: whether arms' variances between seeds moderate each other.
    """

    def __init__(
        self,
        correct: Mapping[str, Any],
        groups_Q: Sequence[str],
        *,
        replicates: int = REPLICATES,
        moderates: bool = True,
    ) -> None:
        _, image_Q = np.unique(np.asarray(groups_Q), return_inverse=True)
        self.questions_C = np.bincount(image_Q).astype(float)
        self.arms = {arm: self._arm(arm, given, image_Q) for arm, given in correct.items()}
        each = self.arms.values()
        variances = [arm.variance for arm in each]
        moderated = (
            moderate(variances, [arm.seeds - 1 for arm in each])
            if moderates
            else [Moderated(variance=variance) for variance in variances]
        )
        self._variances = dict(zip(map(id, each), moderated, strict=True))
        self._pairs = {pair: i for i, pair in enumerate(itertools.combinations(self.arms, 2))}
        self._column = {arm: i for i, arm in enumerate(self.arms)}
        self._normal_R, self._moved_RA, self._swapped_RP = self._replicates(replicates)

    def score(self, arm: str) -> Estimate:
        """Accuracy of an arm in percent."""
        found = self.arms[arm]
        moved_R = self._moved_RA[:, self._column[arm]]
        mean = float(found.scores_S.mean())
        return _estimate(
            mean, self._with_seeds(moved_R, self._components(found)), least=0.0, most=100.0
        )

    def best(self) -> Estimate:
        """Accuracy of the best arm in percent, by an estimate and an interval that allow for
        its having been chosen (``winner.py``). The estimate is mostly lower than the plain mean.

        Where a variance between seeds was found, the upper end is that of the plain interval at
        least: the correction takes variances as known, and if few seeds find them too large it
        lowers the interval too much (``tests/benchmarks/RESULTS.md``).
        """
        moved_RA = self._moved_RA
        covariance_AA = np.atleast_2d(np.cov(moved_RA, rowvar=False))
        components = [self._components(arm) for arm in self.arms.values()]
        covariance_AA += np.diag([each.from_seeds(each.count_S) for each in components])
        scores_A = np.array([arm.scores_S.mean() for arm in self.arms.values()])
        best = int(scores_A.argmax())
        known = components[best]
        mean, low, high = winner.of_best(
            scores_A, covariance_AA, known.freedom(known.count_S, known.count_C)
        )
        high = min(max(high, low), 1.0)
        if known.from_seeds(known.count_S):
            high = max(high, self.score(list(self.arms)[best]).high / 100)
        return Estimate(mean=100 * mean, low=100 * max(low, 0.0), high=100 * high)

    def difference(self, first: str, second: str) -> Difference:
        """Difference of two arms, first minus second, in percentage points."""
        one, other = self.arms[first], self.arms[second]
        mean = float(one.scores_S.mean() - other.scores_S.mean())
        moved_R = self._moved_RA[:, self._column[first]] - self._moved_RA[:, self._column[second]]
        pair = (first, second) if (first, second) in self._pairs else (second, first)
        components = self._components(one, other)
        equal_R = np.abs(self._with_seeds(self._swapped_RP[:, self._pairs[pair]], components))
        as_large = np.count_nonzero(equal_R >= abs(mean) - 1e-12)
        known = _estimate(mean, self._with_seeds(moved_R, components))
        further = 100 * components.unseen(components.count_C)
        return Difference(
            estimate=replace(
                known, low=max(known.low - further, -100.0), high=min(known.high + further, 100.0)
            ),
            p=float((1 + as_large) / (1 + len(equal_R))),
            components=components,
        )

    def interaction(self, one: tuple[str, str], other: tuple[str, str]) -> Difference:
        """Difference of two differences of arms in percentage points: by how much more the first of
        ``one`` scores than its second, than the first of ``other`` scores than its second.

        Four arms cannot be exchanged, so the p-value is how often resampled images, with the
        variation between seeds, move the difference of differences as far as it is from zero.
        """
        four = [self.arms[arm] for arm in (*one, *other)]
        mean = float(sum(s * a.scores_S.mean() for s, a in zip(SIGNS, four, strict=True)))
        columns = [self._column[arm] for arm in (*one, *other)]
        moved_R = self._moved_RA[:, columns] @ np.array(SIGNS)
        components = self._components(*four)
        joined_R = self._with_seeds(moved_R, components)
        as_large = np.count_nonzero(np.abs(joined_R) >= abs(mean) - 1e-12)
        known = _estimate(mean, joined_R, least=-200.0, most=200.0)
        further = 100 * components.unseen(components.count_C)
        return Difference(
            estimate=replace(
                known, low=max(known.low - further, -200.0), high=min(known.high + further, 200.0)
            ),
            p=float((1 + as_large) / (1 + len(joined_R))),
            components=components,
        )

    def _arm(self, arm: str, correct_SQ: Any, image_Q: Array) -> _Arm:
        """The answers of one arm, summed by image. ``arm`` is its name."""
        images = len(self.questions_C)
        right_SC = np.stack([np.bincount(image_Q, row, images) for row in correct_SQ])
        scores_S = right_SC.sum(1) / self.questions_C.sum()
        above_SC = (right_SC - scores_S[:, None] * self.questions_C) / self.questions_C.mean()
        return _Arm(right_SC=right_SC, scores_S=scores_S, above_SC=above_SC)

    def _components(self, *arms: _Arm) -> VarianceComponents:
        """Variance components of one arm's score, of the difference of two arms, or of four arms'
        difference of differences."""
        signed = [*zip(SIGNS, arms, strict=False)]
        apart_C = np.sum([sign * arm.above_SC.mean(0) for sign, arm in signed], axis=0)
        images = len(apart_C)
        rare = False
        if len(arms) > 1:
            gap_C = np.sum([sign * arm.right_SC.mean(0) for sign, arm in signed], axis=0)
            rare = int(np.count_nonzero(self._telling(gap_C, apart_C))) < RARE
        total = float((apart_C**2).sum() / max(images - 1, 1))
        counts = tuple(arm.seeds for arm in arms)
        return VarianceComponents(
            count_S=min(counts),
            counts=counts if len({*counts}) > 1 else (),
            count_C=images,
            images=max(total - sum(arm.both / arm.seeds for arm in arms), 0.0),
            seeds=tuple(self._between(arm) for arm in arms),
            both=tuple(arm.both for arm in arms),
            rare=rare,
            borrowed=tuple(self._variances[id(arm)].borrowed for arm in arms),
            lenders=sum(each.borrowed > 0 for each in self._variances.values()),
        )

    def _telling(self, gap_C: Array, apart_C: Array) -> Array:
        """Whether an image tells arms apart, by the difference of what it has in ``right_SC`` and
        by that of how far it moves their scores; (C,)."""
        telling_C: Array = np.abs(gap_C) > 1e-12
        return telling_C

    def _between(self, arm: _Arm) -> float:
        """Variance between an arm's seeds over and above ``both``; never negative, and 0 for one
        seed."""
        if arm.seeds < 2:
            return 0.0
        moderated = self._variances[id(arm)].variance
        return max(moderated - arm.both / len(self.questions_C), 0.0)

    def _replicates(self, count: int) -> tuple[Array, Array, Array]:
        """Replicates of what chance in the images does.

        Returns:
            Standard normal numbers, which ``_with_seeds`` scales; shape (R,). How far each arm's
            mean moves when images are resampled; shape (R, A). Each pair's difference when the two
            arms are exchanged on half of the images; shape (R, P).
        """
        drawn = np.random.default_rng(0)
        images = len(self.questions_C)
        right_CA = np.stack([arm.right_SC.mean(0) for arm in self.arms.values()], axis=1)
        mean_A = right_CA.sum(0) / self.questions_C.sum()
        apart_CP = np.empty((images, len(self._pairs)))
        for (first, second), pair in self._pairs.items():
            apart_CP[:, pair] = right_CA[:, self._column[first]] - right_CA[:, self._column[second]]
        # C images have C - 1 degrees of freedom: resampling them gives too small a spread.
        stretch = np.sqrt(images / max(images - 1, 1))
        moved, swapped = [], []
        for size in _portions(count, images):
            at_once = np.arange(size)[:, None] * images
            picked = drawn.integers(0, images, (size, images)) + at_once
            weights_RC = np.bincount(picked.ravel(), minlength=size * images).reshape(size, images)
            accuracy_RA = (weights_RC @ right_CA) / (weights_RC @ self.questions_C)[:, None]
            moved.append((accuracy_RA - mean_A) * stretch)
            signs_RC = drawn.integers(0, 2, (size, images)) * 2.0 - 1.0
            swapped.append(signs_RC @ apart_CP / self.questions_C.sum())
        return drawn.standard_normal(count), np.concatenate(moved), np.concatenate(swapped)

    def _with_seeds(self, by_images_R: Array, components: VarianceComponents) -> Array:
        """Add chance in the seeds to chance in the images, and widen both by how uncertain their
        variances are."""
        of_seeds = np.sqrt(components.from_seeds(components.count_S))
        joined_R: Array = by_images_R + of_seeds * self._normal_R
        free = components.freedom(components.count_S, components.count_C)
        if not np.isfinite(free):
            return joined_R
        joined_R /= np.sqrt(np.random.default_rng(1).chisquare(free, len(joined_R)) / free)
        return joined_R


def holm(p: Sequence[float]) -> list[float]:
    """P-values of a family of tests, adjusted to keep the chance of any false finding at one test's
    level.

    The method is that of Holm 1979: the smallest is multiplied by the number of tests, the next by
    one less, and so on.
    """
    adjusted, so_far = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = so_far
    return adjusted


def _portions(count: int, images: int) -> list[int]:
    """Sizes of portions of ``count`` replicates that fit into memory."""
    most = max(1, 4_000_000 // images)
    return [min(most, count - done) for done in range(0, count, most)]


def _estimate(
    mean: float, moved_R: Array, *, least: float = -100.0, most: float = 100.0
) -> Estimate:
    """Mean and interval in percent, from a mean and how far replicates move it, both fractions."""
    tail = (100 - LEVEL) / 2
    low, high = 100 * (mean + np.percentile(moved_R, [tail, 100 - tail]))
    return Estimate(
        mean=100 * mean, low=max(least, min(float(low), 100 * mean)), high=min(most, float(high))
    )
