"""What is known when a point is drawn, and first points that are spread over an arm's ranges.

An arm's first points are a Latin hypercube (McKay et al. 1979), which has one in each quarter of
the learning rates. Independent random points often leave an arm without any learning rate that
suits it, so that it loses for that and not for what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

SPREAD_PER_ARM = 4
"""First points of an arm, drawn before a model is made of its results."""
LATEST = 200
"""Latest trials of a study that are remembered, beside each arm's best."""
Point = dict[str, Any]
"""Name of a parameter -> its value, for parameters that have more than one."""
Known = Callable[[str, Mapping[str, Any]], bool]
"""Function that tells whether a point of an arm was drawn before."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """Everything that the next draw depends on."""

    trials: Sequence[FrozenTrial]
    """Ended trials that are remembered and those that run, of all arms, by their numbers."""
    groups: Mapping[str, Mapping[str, BaseDistribution]]
    """Arm -> its parameters."""
    draws: Mapping[str, int]
    """Arm -> number of points drawn for it."""
    known: Known
    seed: int
    """Seed of the study."""
    objectives: int
    """Number of objectives, all of them minimised."""
    trial: FrozenTrial
    """Trial that is drawn, for samplers of Optuna."""

    @property
    def seed_of_draw(self) -> int:
        """Seed of this draw, different for each draw of a study."""
        return draw_seed(self.seed, self.draws)

    @cached_property
    def chance(self) -> np.random.Generator:
        """Random numbers of this draw."""
        return np.random.default_rng(self.seed_of_draw)

    @cached_property
    def tpe(self) -> BaseSampler:
        """TPE of this draw."""
        return TPESampler(multivariate=True, n_startup_trials=0, seed=self.seed_of_draw)

    def ranges(self, arm: str) -> dict[str, BaseDistribution]:
        """An arm's parameters that have more than one value, by their names in order."""
        return {name: d for name, d in sorted(self.groups[arm].items()) if not d.single()}

    def of_arm(self, arm: str) -> list[FrozenTrial]:
        """Trials of one arm."""
        return [trial for trial in self.trials if trial.params["arm"] == arm]

    def drawn_by(
        self,
        sampler: BaseSampler,
        ranges: Mapping[str, BaseDistribution],
        trials: Sequence[FrozenTrial],
    ) -> Point:
        """Values for ``ranges`` that a sampler of Optuna draws, having seen ``trials``."""
        directions = [StudyDirection.MINIMIZE] * self.objectives
        view = optuna.create_study(storage=_SeenTrials(trials), directions=directions)
        return sampler.sample_relative(view, self.trial, dict(ranges))

    def random(self, arm: str) -> Point:
        """A point of ``arm``, all parts of its ranges equally likely."""
        return {name: at(self.chance.random(), d) for name, d in self.ranges(arm).items()}

    def first(self, arm: str) -> Point | None:
        """The next of an arm's first points; None once they are drawn."""
        drawn = self.draws.get(arm, 0)
        return spread(self.ranges(arm), self.seed, arm)[drawn] if drawn < SPREAD_PER_ARM else None


def draw_seed(seed: int, draws: Mapping[str, int]) -> int:
    """Seed of the draw that follows ``draws``, in a study of this seed."""
    return (seed * 1_000_003 + sum(draws.values())) % 2**32


def spread(group: Mapping[str, BaseDistribution], seed: int, arm: str) -> list[Point]:
    """An arm's first points: a Latin hypercube over its ranges."""
    chance = np.random.default_rng([seed, *arm.encode()])
    cells = chance.permuted(np.tile(np.arange(SPREAD_PER_ARM), (len(group), 1)), axis=1)
    shares = (cells + chance.random(cells.shape)) / SPREAD_PER_ARM
    return [
        {name: at(share, d) for share, (name, d) in zip(point, group.items(), strict=True)}
        for point in shares.T
    ]


def at(share: float, distribution: BaseDistribution) -> Any:
    """The value of a range below which ``share`` of the range lies."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** share if distribution.log else low + (high - low) * share
    return min(max(float(value), low), high)


class _SeenTrials(InMemoryStorage):
    """Optuna storage of a study that has some trials and no others: what a sampler reads."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self.trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The seen trials in one of ``states``. They are never changed, so never copied."""
        return [trial for trial in self.trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store nothing: samplers leave notes for other processes that draw, and there are none."""
