"""Gaussian process for each arm: the point at which the loss is expected to improve most.

The process (``common/gaussian_process.py``) sees the arm's trials, those that were stopped with the
loss that is expected of them (``common/expected_losses.py``). Losses above the arm's median are
compressed: how bad a bad learning rate is says nothing of the good ones, and a process of one scale
would take the cliff for the landscape. Results that are awaited are taken to be what the process
expects.

With several objectives it leaves the draw to TPE, which knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from study.search.searchers import tpe
from study.search.searchers.common import expected_losses
from study.search.searchers.common.cube import Cube
from study.search.searchers.common.gaussian_process import (
    Process,
    expected_improvement,
    on_one_thread,
)
from study.search.searchers.common.known_trials import Past, Point

BEST, LATEST = 25, 50
"""Trials that the process sees: an arm's best, and the latest of the others. So a draw takes no
longer after thousands of trials than after a hundred."""
ANYWHERE, NEAR, NEAREST = 300, 40, 5
"""Number of random candidates; of candidates near each of the best trials; of those best trials."""
SURE, EXPLORE = 12, 5
"""Number of an arm's trials from which on every ``EXPLORE``-th point explores: it is the random
candidate farthest from all trials. A process that is sure of itself never looks for a second
valley."""
STEPS = (0.15, 0.03)
"""Standard deviations of the distance of a near candidate, as shares of a range."""
KEPT = 64
"""Processes that are remembered: as many as a study may have arms, roughly."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of an arm."""

    cube: Cube
    rows: np.ndarray
    """Points of the trials that the process sees, [N, axes]."""
    losses: np.ndarray
    """Losses of these trials, measured or expected, [N]."""
    deviation: float
    """Loss that is 1 to the process, below the median."""
    process: Process

    def candidates(self, chance: np.random.Generator) -> np.ndarray:
        """Points among which the best are looked for, [M, axes]: some anywhere, some near the best
        trials."""
        good = self.rows[np.argsort(self.losses, kind="stable")[:NEAREST]]
        return np.concatenate([self.cube.random(chance, ANYWHERE), _near(self.cube, good, chance)])


@on_one_thread
def point(past: Past, arm: str) -> Point:
    """The next point of ``arm``; its first points are spread over its ranges."""
    first = past.first(arm)
    own = past.of_arm(arm)
    ended = expected_losses.ended(own)
    if first is not None:
        return first
    if past.objectives > 1:
        return tpe.point(past, arm)
    if len(ended) < 2:
        return past.random(arm)
    known = model(ended, past.ranges(arm), past.seed)
    cube = known.cube
    drawn = past.draws.get(arm, 0)
    if drawn >= SURE and drawn % EXPLORE == 0:
        rows = cube.random(past.chance, ANYWHERE)
        far = np.abs(rows[:, None] - known.rows[None]).max(axis=2).min(axis=1)
        return cube.point(rows[far.argmax()])
    running = [cube.row(t.params) for t in own if t.state is TrialState.RUNNING]
    process = known.process.believing(np.array(running))
    candidates = known.candidates(past.chance)
    best = process.predict(process.rows)[0].min(axis=1)
    gains = expected_improvement(best, *process.predict(candidates))
    closer = _near(cube, candidates[[int(gains.argmax())]], past.chance)
    candidates = np.concatenate([candidates, closer])
    gains = np.concatenate([gains, expected_improvement(best, *process.predict(closer))])
    for number in np.argsort(-gains, kind="stable"):
        found = cube.point(candidates[number])
        if not past.known(arm, found):
            return found
    return past.random(arm)


def model(ended: Sequence[FrozenTrial], ranges: Mapping[str, BaseDistribution], seed: int) -> Model:
    """The model of an arm whose trials have ended so; ``seed`` is the study's."""
    cube = Cube(ranges)
    seen, losses, doubts = _window(ended)
    rows = np.array([cube.row(trial.params) for trial in seen])
    results, unit = standardized(losses)
    return Model(
        cube=cube,
        rows=rows,
        losses=losses,
        deviation=float(unit.min()),
        process=_fitted(
            rows.tobytes(),
            results.tobytes(),
            ((doubts / unit) ** 2).tobytes(),
            tuple(cube.unordered.tolist()),
            (seed, len(ended)),
        ),
    )


@lru_cache(maxsize=KEPT)
def _fitted(
    rows: bytes, results: bytes, doubts: bytes, unordered: tuple[bool, ...], seed: tuple[int, ...]
) -> Process:
    """The process of these numbers, remembered: what an arm may still gain and its next point
    follow from the same one."""
    return Process.fit(
        np.frombuffer(rows).reshape(-1, len(unordered)),
        np.frombuffer(results),
        np.frombuffer(doubts),
        np.array(unordered, bool),
        np.random.default_rng(seed),
    )


def standardized(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses of mean 0 and variance 1, those above the median compressed logarithmically in units
    of what lies between the best and the median; and the loss that is 1 at each of them."""
    middle = np.median(losses)
    unit = max(float(middle - losses.min()), 1e-9)
    above = np.maximum(losses - middle, 0.0)
    compressed = np.minimum(losses, middle) + unit * np.log1p(above / unit)
    deviation = max(float(compressed.std()), 1e-9)
    return (compressed - compressed.mean()) / deviation, deviation * (1 + above / unit)


def _window(ended: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], np.ndarray, np.ndarray]:
    """Trials that the process sees, their losses, and how doubtful these are."""
    losses, doubts = expected_losses.losses(ended), expected_losses.doubts(ended)
    order = np.argsort(losses, kind="stable")
    kept = sorted([*order[:BEST], *sorted(order[BEST:])[-LATEST:]])
    return [ended[index] for index in kept], losses[kept], doubts[kept]


def _near(cube: Cube, rows: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Points near ``rows``. Each axis stays as it is or moves, and a choice moves to any value."""
    start = np.repeat(rows, NEAR, axis=0)
    step = np.resize(STEPS, len(start))[:, None] * chance.standard_normal(start.shape)
    moved = np.abs(start + step)
    moved = 1 - np.abs(1 - moved)  # what leaves the range is reflected into it
    chosen = np.array([axis.values is not None for axis in cube.axes])
    moved = np.where(chosen, cube.random(chance, len(start)), moved)
    changed = chance.random(start.shape) < np.where(chosen, 0.3, 0.8)
    return cube.on_values(np.where(changed, moved, start))
