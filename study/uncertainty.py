"""How sure a score is, and a difference of two: interval, p-value, and what more data would tell.

Two kinds of luck are in a score: which images were asked about (questions about one image go
together) and which seeds were drawn. Studies in radiology have the same two, cases and readers
(Obuchowski and Rockette 1995, doi 10.1080/03610919508813243); each arm has readers of its own.

Images are many. They are resampled for the intervals, and for the test the two arms change places
on images drawn by lot; both arms are always asked the same. Seeds are few. To resample three of
them makes intervals too narrow by a half, and to change the places of 3 + 3 trained models can be
done in 20 ways, so that no p-value falls below 0.1. Their luck is therefore added as what it is
known by: a variance with two degrees of freedom an arm. Both kinds are joined as in Student's t,
with degrees of freedom after Satterthwaite (1946) and Hillis (2007, doi 10.1002/sim.2532).

Resampling knows only what is there: of two arms that answer all images alike it makes an interval
of no width, for five images as for five thousand. But of ``n`` images alike up to ``3 / n`` of all
may not be (the rule of three, Hanley and Lippman-Hand 1983, doi 10.1001/jama.1983.03330370053031).
While fewer than ``RARE`` images tell two arms apart, the interval reaches as much further to both
sides, and from as few images in all nothing follows. No such pair is kept from being called better
by that: five that all favour one arm have a p-value of 2 / 2**5, which is above 0.05.

``python -m tests.benchmarks.coverage`` measures how often these intervals hold the truth, and how
often the test sees a difference where there is none, beside the plain ways to do it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
REPLICATES = 10_000
LEVEL = 95
"""Percent of the intervals."""
POWER = 0.8
"""The chance of telling a difference that is there, with as much data as is said to be needed."""
RARE, UNSEEN = 6, 3
"""Fewer images than ``RARE`` say too little of those like them: ``UNSEEN`` more may be there."""
MOST_SEEDS, MOST_TIMES = 200, 100
"""More seeds, or more times the questions, than that are as good as never."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95% interval; percent or percentage points."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Luck:
    """The variance of a score or difference by its sources; fractions squared, not percent.

    With S seeds and C images the variance is ``(images + sum(both) / S) / C + sum(seeds) / S``.
    """

    count_S: int
    """Seeds of each arm; of the arm with the fewest."""
    count_C: int
    """Images."""
    images: float
    """Between images, over and above what differs between seeds."""
    seeds: tuple[float, ...]
    """Between seeds, of each arm."""
    both: tuple[float, ...]
    """Between seeds on one image, of each arm."""
    rare: bool = False
    """Fewer than ``RARE`` images tell the two arms apart."""

    def unseen(self, images: int) -> float:
        """How far images unlike those that were drawn may move the difference; a fraction."""
        if not self.rare:
            return 0.0
        return UNSEEN / images if images >= RARE else 2.0

    def variance(self, seeds: int, images: int) -> float:
        """Of the mean, if there were as many."""
        return self._from_images(seeds, images) + sum(self.seeds) / seeds

    def freedom(self, seeds: int, images: int) -> float:
        """Degrees of freedom of that variance's estimate (Satterthwaite)."""
        if seeds < 2:
            return float("inf")
        known = self._from_images(seeds, images) ** 2 / max(images - 1, 1)
        for between, both in zip(self.seeds, self.both, strict=True):
            # None was found between seeds: then nothing of it is in the variance, sure or not.
            measured = between + both / images if between else 0.0
            known += (measured / seeds) ** 2 / (seeds - 1)
        return self.variance(seeds, images) ** 2 / known if known else float("inf")

    @property
    def seeds_share(self) -> float:
        """How much of the variance, as it is, more seeds alone could remove; 0 to 1."""
        now = self.variance(self.count_S, self.count_C)
        of_seeds = sum(self.seeds) + sum(self.both) / self.count_C
        return of_seeds / self.count_S / now if now else 0.0

    def _from_images(self, seeds: int, images: int) -> float:
        return (self.images + sum(self.both) / seeds) / images


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far one arm is above another."""

    estimate: Estimate
    p: float
    """Two-sided: how often luck alone makes as large a difference between equal arms."""
    luck: Luck


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """One arm's answers, summed by image."""

    right_SC: Array
    scores_S: Array
    """Accuracy of each seed; a fraction."""
    above_SC: Array
    """By how much an image raises a seed's accuracy, times C; the mean over images is 0."""

    @property
    def seeds(self) -> int:
        return len(self.scores_S)

    @property
    def both(self) -> float:
        """The variance between seeds on one image; see ``Luck``."""
        if self.seeds < 2:
            return 0.0
        apart_SC = self.above_SC - self.above_SC.mean(0)
        free = (self.seeds - 1) * max(self.above_SC.shape[1] - 1, 1)
        return float((apart_SC**2).sum() / free)

    @property
    def between(self) -> float:
        """The variance between seeds over and above ``both``; never negative."""
        if self.seeds < 2:
            return 0.0
        images = int(self.above_SC.shape[1])
        return max(float(self.scores_S.var(ddof=1)) - self.both / images, 0.0)


class Scores:
    """The answers of some arms to the same questions, and what may be said of them.

    Args:
        correct: arm -> 1 where a seed's model answered a question correctly; shape (S, Q), where
            each arm may have its own number of seeds S.
        images_Q: each question's image.
    """

    def __init__(
        self,
        correct: Mapping[str, Array],
        images_Q: Sequence[str],
        *,
        replicates: int = REPLICATES,
    ) -> None:
        _, image_Q = np.unique(np.asarray(images_Q), return_inverse=True)
        self.questions_C = np.bincount(image_Q).astype(float)
        self.arms = {arm: self._arm(correct_SQ, image_Q) for arm, correct_SQ in correct.items()}
        self._pairs = {pair: i for i, pair in enumerate(itertools.combinations(self.arms, 2))}
        self._column = {arm: i for i, arm in enumerate(self.arms)}
        self._normal_R, self._moved_RA, self._swapped_RP = self._replicates(replicates)

    def score(self, arm: str) -> Estimate:
        """Accuracy in percent."""
        found = self.arms[arm]
        moved_R = self._moved_RA[:, self._column[arm]]
        mean = float(found.scores_S.mean())
        return _estimate(mean, self._with_seeds(moved_R, self._luck(found)), least=0.0, most=100.0)

    def difference(self, first: str, second: str) -> Difference:
        """First minus second, in percentage points."""
        one, other = self.arms[first], self.arms[second]
        mean = float(one.scores_S.mean() - other.scores_S.mean())
        moved_R = self._moved_RA[:, self._column[first]] - self._moved_RA[:, self._column[second]]
        pair = (first, second) if (first, second) in self._pairs else (second, first)
        luck = self._luck(one, other)
        equal_R = np.abs(self._with_seeds(self._swapped_RP[:, self._pairs[pair]], luck))
        as_large = np.count_nonzero(equal_R >= abs(mean) - 1e-12)
        known = _estimate(mean, self._with_seeds(moved_R, luck))
        further = 100 * luck.unseen(luck.count_C)
        return Difference(
            estimate=replace(
                known, low=max(known.low - further, -100.0), high=min(known.high + further, 100.0)
            ),
            p=float((1 + as_large) / (1 + len(equal_R))),
            luck=luck,
        )

    def _arm(self, correct_SQ: Array, image_Q: Array) -> _Arm:
        images = len(self.questions_C)
        right_SC = np.stack([np.bincount(image_Q, row, images) for row in correct_SQ])
        scores_S = right_SC.sum(1) / self.questions_C.sum()
        above_SC = (right_SC - scores_S[:, None] * self.questions_C) / self.questions_C.mean()
        return _Arm(right_SC=right_SC, scores_S=scores_S, above_SC=above_SC)

    def _luck(self, one: _Arm, other: _Arm | None = None) -> Luck:
        arms = [one] if other is None else [one, other]
        apart_C = one.above_SC.mean(0) - (0 if other is None else other.above_SC.mean(0))
        images = len(apart_C)
        rare = False
        if other is not None:
            gap_C = one.right_SC.mean(0) - other.right_SC.mean(0)
            rare = int(np.count_nonzero(np.abs(gap_C) > 1e-12)) < RARE
        total = float((apart_C**2).sum() / max(images - 1, 1))
        return Luck(
            count_S=min(arm.seeds for arm in arms),
            count_C=images,
            images=max(total - sum(arm.both / arm.seeds for arm in arms), 0.0),
            seeds=tuple(arm.between for arm in arms),
            both=tuple(arm.both for arm in arms),
            rare=rare,
        )

    def _replicates(self, count: int) -> tuple[Array, Array, Array]:
        """What luck with images does: how far each arm's mean moves when images are resampled, and
        each pair's difference when the two change places on half of the images."""
        drawn = np.random.default_rng(0)
        images = len(self.questions_C)
        right_CA = np.stack([arm.right_SC.mean(0) for arm in self.arms.values()], axis=1)
        mean_A = right_CA.sum(0) / self.questions_C.sum()
        apart_CP = np.empty((images, len(self._pairs)))
        for (first, second), pair in self._pairs.items():
            apart_CP[:, pair] = right_CA[:, self._column[first]] - right_CA[:, self._column[second]]
        # Resampling C images knows C - 1 differences between them.
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

    def _with_seeds(self, by_images_R: Array, luck: Luck) -> Array:
        """Add luck with seeds to luck with images, as uncertain as both are known to be."""
        of_seeds = np.sqrt(sum(luck.seeds) / luck.count_S)
        joined_R: Array = by_images_R + of_seeds * self._normal_R
        free = luck.freedom(luck.count_S, luck.count_C)
        if not np.isfinite(free):
            return joined_R
        joined_R /= np.sqrt(np.random.default_rng(1).chisquare(free, len(joined_R)) / free)
        return joined_R


def holm(p: Sequence[float]) -> list[float]:
    """P-values of a family of tests, so adjusted that the chance of any false finding is kept.

    (Holm 1979: the smallest is multiplied by the number of tests, the next by one less, ...)
    """
    adjusted, so_far = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = so_far
    return adjusted


def seeds_needed(luck: Luck, points: float, tests: int = 1) -> int | None:
    """Seeds an arm with which a true difference of ``points`` would be told, on the same images;
    None if even ``MOST_SEEDS`` are too few.

    ``tests`` are corrected for by the smallest level of Holm's.
    """

    def tells(seeds: int) -> bool:
        return _tells(luck, seeds, luck.count_C, points, tests)

    return _fewest(tells, luck.count_S + 1, MOST_SEEDS)


def images_needed(luck: Luck, points: float, tests: int = 1) -> int | None:
    """The same for images, with the same seeds; None if ``MOST_TIMES`` as many are too few."""

    def tells(images: int) -> bool:
        return _tells(luck, luck.count_S, images, points, tests)

    return _fewest(tells, luck.count_C + 1, luck.count_C * MOST_TIMES)


def _fewest(tells: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number that tells: more tell whatever fewer do."""
    if not tells(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle + 1, high)
    return low


def _tells(luck: Luck, seeds: int, images: int, points: float, tests: int) -> bool:
    """Whether the difference is seen in ``POWER`` of all studies."""
    from scipy.special import stdtrit

    level = 1 - (100 - LEVEL) / 200 / tests
    free = min(luck.freedom(seeds, images), 1e9)
    far = float(stdtrit(free, level) + stdtrit(free, POWER))
    known = far * float(np.sqrt(luck.variance(seeds, images)))
    return known + luck.unseen(images) <= points / 100


def _portions(count: int, images: int) -> list[int]:
    """``count`` replicates in portions that fit into memory."""
    most = max(1, 4_000_000 // images)
    return [min(most, count - done) for done in range(0, count, most)]


def _estimate(
    mean: float, moved_R: Array, *, least: float = -100.0, most: float = 100.0
) -> Estimate:
    tail = (100 - LEVEL) / 2
    low, high = 100 * (mean + np.percentile(moved_R, [tail, 100 - tail]))
    return Estimate(
        mean=100 * mean, low=max(least, min(float(low), 100 * mean)), high=min(most, float(high))
    )
