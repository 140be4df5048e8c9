"""Uncertainty of a statistic that is no mean over questions, such as macro F1 or AUROC.

It is as for accuracies (``uncertainty.py``), but the statistic itself is computed anew for each
resampling of images, and for each exchange of two arms' answers. What one image does to it, from
which the variances between seeds and images are estimated, is its jackknife value (Efron 1982, doi
10.1137/1.9781611970319): how far the statistic moves without the image, times one less than the
number of images.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from study.statistics.score_types import Estimate
from study.statistics.uncertainty import LEVEL, Array, Scores, _Arm

REPLICATES = 2_000
"""Number of times that images are resampled and arms exchanged."""
AT_ONCE = 2_000_000
"""Number of weights of questions that are made at once."""

Statistic = Callable[[Array], Array]
"""Statistic in percent for several weightings of questions: from shape (R, Q) to (R,)."""
Maker = Callable[[Sequence[Sequence[Any]]], Statistic]
"""Function that makes the statistic of the answers of several models to all questions, one model
after another."""


class ResampledScores(Scores):
    """The answers of some arms to the same questions, with a statistic of them and its
    differences.

    Args:
        given: arm -> answers of each seed's model to all Q questions.
        groups_Q: what is independent of others, for each question: its image, or the patient.
        make: makes the statistic.
        replicates: number of times that images are resampled.
    """

    def __init__(
        self,
        given: Mapping[str, Sequence[Sequence[Any]]],
        groups_Q: Sequence[str],
        make: Maker,
        *,
        replicates: int = REPLICATES,
    ) -> None:
        self._given, self._make = given, make
        _, self._image_Q = np.unique(np.asarray(groups_Q), return_inverse=True)
        self._statistics = {arm: [make([one]) for one in seeds] for arm, seeds in given.items()}
        super().__init__(given, groups_Q, replicates=replicates)

    def above_zero(self, arm: str, by_chance: float) -> Estimate:
        """Statistic of an arm that is never negative and is too high by chance, such as a
        calibration error: its mean over seeds and an interval whose lower end allows for that.

        Resampled images raise such a statistic by about as much as the drawn ones had raised it
        already. So the lower end is as far below the statistic as replicates are above it (as in
        the basic bootstrap: Davison and Hinkley 1997, *Bootstrap Methods and their Application*,
        section 5.2). A statistic whose truth is near zero is raised by more than that: the lower
        end is zero where the statistic is not above ``by_chance``, what a true zero exceeds in
        2.5%. The upper end is that of ``score``: how much the drawn images raised the statistic is
        known too badly to take it off.
        """
        found, plain = self.arms[arm], self.score(arm)
        joined_R = self._with_seeds(self._moved_RA[:, self._column[arm]], self._components(found))
        above = 100 * float(np.percentile(joined_R, 100 - (100 - LEVEL) / 2))
        low = 0.0 if plain.mean <= by_chance else max(plain.mean - above, 0.0)
        return replace(plain, low=low, high=max(plain.high, plain.mean))

    def _arm(self, arm: str, given: Sequence[Sequence[Any]], image_Q: Array) -> _Arm:
        """The jackknife values of the answers ``given`` by the models of one arm."""
        images = len(self.questions_C)
        scores_S = np.array([of(np.ones((1, len(image_Q))))[0] for of in self._statistics[arm]])
        without_CC = 1 - np.eye(images)
        left_SC = np.stack([self._of_images(of, without_CC) for of in self._statistics[arm]])
        above_SC = (images - 1) * (scores_S[:, None] - left_SC) / 100
        above_SC = np.nan_to_num(above_SC - above_SC.mean(1, keepdims=True))
        # Images on which two arms do not answer alike are counted by codes of their answers.
        codes_SC = np.stack(
            [
                np.bincount(image_Q, [zlib.crc32(repr(a).encode()) % 997 for a in one], images)
                for one in given
            ]
        )
        return _Arm(right_SC=codes_SC, scores_S=scores_S / 100, above_SC=above_SC)

    def _telling(self, gap_C: Array, apart_C: Array) -> Array:
        """Whether an image tells arms apart; (C,). Answers that differ, of which each leaves the
        statistic as it is, do not: two arms that are never right are alike."""
        return super()._telling(gap_C, apart_C) & (np.abs(apart_C) > 1e-9)

    def _replicates(self, count: int) -> tuple[Array, Array, Array]:
        """Replicates of what chance in the images does, as in ``Scores``."""
        drawn = np.random.default_rng(0)
        images = len(self.questions_C)
        stretch = np.sqrt(images / max(images - 1, 1))
        picked = drawn.integers(0, images, (count, images)) + np.arange(count)[:, None] * images
        weights_RC = np.bincount(picked.ravel(), minlength=count * images).reshape(count, images)
        moved_RA = np.stack(
            [
                np.mean([self._of_images(of, weights_RC) for of in seeds], axis=0) / 100
                - self.arms[arm].scores_S.mean()
                for arm, seeds in self._statistics.items()
            ],
            axis=1,
        )
        first_RC = drawn.integers(0, 2, (count, images)).astype(float)
        swapped_RP = np.empty((count, len(self._pairs)))
        for (first, second), pair in self._pairs.items():
            one, other = self._given[first], self._given[second]
            swapped_RP[:, pair] = np.mean(
                [
                    self._exchanged(one[s % len(one)], other[s % len(other)], first_RC)
                    for s in range(max(len(one), len(other)))
                ],
                axis=0,
            )
        return drawn.standard_normal(count), stretch * moved_RA, swapped_RP

    def _exchanged(self, one: Sequence[Any], other: Sequence[Any], first_RC: Array) -> Array:
        """Difference of two models, as a fraction, each of which has the answers of the other one
        on the images where ``first_RC`` is 0; (R,)."""
        of = self._make([one, other])
        both = (np.concatenate([w, 1 - w], axis=1) for w in (first_RC, 1 - first_RC))
        mine_R, others_R = (self._of_images(of, weights, twice=True) for weights in both)
        return (mine_R - others_R) / 100

    def _of_images(self, of: Statistic, weights_RC: Array, *, twice: bool = False) -> Array:
        """A statistic for several weightings of the images; (R,). ``twice``: of two models, whose
        weights stand side by side."""
        image_Q = self._image_Q
        if twice:
            image_Q = np.concatenate([image_Q, image_Q + len(self.questions_C)])
        size = max(1, AT_ONCE // len(image_Q))
        portions = (weights_RC[i : i + size] for i in range(0, len(weights_RC), size))
        return np.concatenate([of(portion[:, image_Q]) for portion in portions])
