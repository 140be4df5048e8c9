"""How far each arm's best trial is expected to be from the best that the arm can do.

The arm's Gaussian process (``searchers/gp.py``) is drawn many times as a whole surface. In each
draw, what remains is the surface at the arm's best trial less the surface's minimum. The mean of
that is what the arm is expected to gain by a search without end, and its 10th percentile is the
lower end of the range that is said.

The process takes losses to lie as far below the best as above it, but a validation loss is a
cross-entropy, which cannot be negative. So what a draw gains is a share of the best loss: a
standard deviation of the process is one of the losses' logarithms. The upper end is more careful
and does without this.

The upper end, which nine of ten times is not to be exceeded, needs more. Late in a search the
process is sure to a thousandth of the arm's losses, and no process of smooth surfaces should be:
surfaces have edges and steps, and the losses of one seed are not those of another. So each draw
gains besides, by chance, a small share of what lies between the arm's lowest and its median loss
(the discrepancy between model and truth of Kennedy & O'Hagan 2001, *Bayesian calibration of
computer models*).

On most arms the upper end holds in 85 to 100% of searches (``tests/benchmarks/RESULTS.md``). It
does not where the best is a narrow valley that no trial has seen (20 to 75%), and less often at a
cliff after a dozen trials and where the best depends on a yes or no (70 to 80%). With four settings
the mean is too large, by up to two times after a dozen trials.

Losses become points by the arm's slope (``loss_slopes.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from study.search.journal import StudyJournal
from study.search.loss_slopes import SCORE, Slope, points_per_loss
from study.search.searchers import gp
from study.search.searchers.common import expected_losses
from study.search.searchers.common.gaussian_process import (
    distances,
    expected_improvement,
    on_one_thread,
)
from study.trials.gain import RemainingGain
from study.trials.spec import Kind

LEAST = 6
"""Smallest number of ended trials from which an arm's gain is estimated."""
DISTINCT = 4
"""Smallest number of different losses from which an arm's gain is estimated: trials that diverged
at once say nothing of the others."""
LIKELIEST, OTHERS = 90, 30
"""Number of points that are drawn jointly since the best may lie there; of random ones besides."""
DRAWS = 16
"""Surfaces drawn for each of the process's settings."""
DISCREPANCY = 0.01
"""Mean of what the process may miss, as a share of what lies between an arm's lowest and its median
loss. It is exponentially distributed."""

SMALLEST_LOSS = 1e-9
"""Loss that smaller ones are taken for, since 0 has no logarithm."""
NOTHING = RemainingGain(mean=0.0, low=0.0, high=0.0)


@on_one_thread
def in_loss(
    trials: Sequence[FrozenTrial], ranges: Mapping[str, BaseDistribution], seed: int
) -> RemainingGain | None:
    """What an arm may still gain in validation loss, by its ``trials``. None if too few have ended,
    or none is complete. The same trials and seed give the same."""
    ended = expected_losses.ended(trials)
    if not ranges:
        return NOTHING
    complete = [trial for trial in ended if trial.state is TrialState.COMPLETE]
    finite = {loss for trial in ended for loss in trial.intermediate_values.values()}
    if len(ended) < LEAST or not complete or len(finite) < DISTINCT:
        return None
    model, chance = gp.model(ended, ranges, seed), np.random.default_rng([seed, len(ended), 1])
    best = min(complete, key=lambda trial: float(trial.values[0]))
    rows = np.concatenate([model.cube.row(best.params)[None], model.candidates(chance)])
    mean, doubt = model.process.predict(rows)
    improvement = expected_improvement(mean[:, 0], mean[:, 1:], doubt[:, 1:])
    likeliest = 1 + np.argsort(-improvement, kind="stable")[:LIKELIEST]
    rows = rows[[0, *likeliest, *range(1, 1 + OTHERS)]]
    surfaces = model.process.surfaces(rows, DRAWS, chance)
    deviations = surfaces[:, 0] - surfaces.min(axis=1)
    of_logarithms = gp.standardized(np.log(np.maximum(model.losses, SMALLEST_LOSS)))[1].min()
    gains = -float(best.values[0]) * np.expm1(-deviations * of_logarithms)
    missed = DISCREPANCY * _spread(model, chance) * chance.exponential(size=len(deviations))
    return RemainingGain(
        mean=float(gains.mean()),
        low=float(np.quantile(gains, 0.1)),
        high=float(np.quantile(deviations * model.deviation + missed, 0.9)),
    )


def _spread(model: gp.Model, chance: np.random.Generator) -> float:
    """Loss between an arm's lowest and the median over its ranges, where the loss of a point is
    taken to be that of the nearest trial."""
    points = model.cube.random(chance, gp.ANYWHERE)
    nearest = distances(points[:, None], model.rows, model.cube.unordered).sum(axis=2).argmin(1)
    return float(np.median(model.losses[nearest]) - model.losses.min())


class ArmGains:
    """What each arm of a study may still gain. It depends on the seed and on the journal alone."""

    def __init__(
        self,
        journal: StudyJournal,
        groups: Mapping[str, Mapping[str, BaseDistribution]],
        points: Mapping[str, float],
        seed: int,
    ) -> None:
        """Read what ``journal`` knows, now and later. ``groups``: arm -> its parameters;
        ``points``: arm -> its number of points."""
        self.journal, self.groups, self.points, self.seed = journal, groups, points, seed
        self._known: dict[str, tuple[tuple[int, ...], RemainingGain | None]] = {}
        """Arm -> numbers of its ended trials, and what followed from them."""
        self._slopes: tuple[int, dict[str, Slope]] = -1, {}
        """Number of trials that had ended, and the slopes that followed from them."""

    def loss(self, arm: str) -> RemainingGain | None:
        """What an arm may still gain in validation loss: nothing if all its points were tried.
        None if too little is known of it."""
        if self.journal.tried[arm] >= self.points[arm]:
            return NOTHING
        trials = [t for t in self.journal.memory.trials() if t.params["arm"] == arm]
        numbers = tuple(trial.number for trial in trials)
        if self._known.get(arm, ((), None))[0] != numbers or not numbers:
            ranges = {n: d for n, d in sorted(self.groups[arm].items()) if not d.single()}
            self._known[arm] = numbers, in_loss(trials, ranges, self.seed)
        return self._known[arm][1]

    def neediest(self, arms: Sequence[str]) -> str:
        """The one of ``arms`` that may gain most, if its running trials share in the gain. One of
        which too little is known comes first, until it has had its chance."""
        running, slopes = self._running(), self.slopes()

        def need(arm: str) -> tuple[bool, float]:
            tried, gain = self.journal.tried[arm], self.loss(arm)
            if gain is None:
                return tried < 2 * LEAST, -float(tried)
            worth = slopes[arm].value if slopes else 1.0
            return False, worth * gain.mean / (1 + running[arm])

        return max(arms, key=need)

    def tuned(self, arms: Iterable[str], to: float) -> bool:
        """Whether all of ``arms`` are expected to gain no more than ``to`` points, also if losses
        are worth a standard error more than they seem. An arm of which still too little is known
        after ``2 * LEAST`` trials, or all of whose first ``LEAST`` trials failed, is not waited
        for."""
        slopes = self.slopes()
        if not slopes:
            return False
        known = {arm: self.loss(arm) for arm in arms}
        gains = {arm: gain for arm, gain in known.items() if gain is not None}
        if not gains or self._waits([arm for arm in known if arm not in gains]):
            return False
        return all(
            gain.mean * (slopes[arm].value + slopes[arm].error) <= to for arm, gain in gains.items()
        )

    def slopes(self) -> dict[str, Slope]:
        """Arm -> what a lower loss is worth to it. Empty if losses cannot become points."""
        ended = self.journal.memory.ended
        if self._slopes[0] != ended:
            self._slopes = ended, points_per_loss(self.journal.records.values(), self.groups)
        return self._slopes[1]

    def _waits(self, unknown: Sequence[str]) -> bool:
        """Whether more trials are needed of one of the arms of which too little is known."""
        if not unknown:
            return False
        failed, ended = self.journal.failed, Counter(self.journal.tried)
        ended.subtract(self._running())
        return any(
            ended[arm] < (LEAST if ended[arm] == failed[arm] else 2 * LEAST) for arm in unknown
        )

    def _running(self) -> Counter[str]:
        """Arm -> number of its trials that have begun and not ended."""
        return Counter(trial.params.get("arm", "") for trial in self.journal.running())

    def found(self) -> dict[str, RemainingGain]:
        """Arm -> what it may still gain, in points if losses can become points, and else in loss.
        Arms of which too little is known are left out."""
        slopes = self.slopes()
        known = {arm: self.loss(arm) for arm in self.groups}
        return {
            arm: gain.in_points(slopes[arm].value, slopes[arm].error, self._left(arm))
            if slopes
            else gain
            for arm, gain in known.items()
            if gain is not None
        }

    def _left(self, arm: str) -> float:
        """Points from the score of the arm's best trial, by validation loss, to 100%."""
        scored = [
            (record.loss, record.scores[SCORE])
            for record in self.journal.of_kind(Kind.SEARCH)
            if record.spec.arm == arm and SCORE in record.scores
        ]
        return 100.0 - min(scored)[1] if scored else 100.0
