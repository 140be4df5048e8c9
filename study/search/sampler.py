"""Draws the next point: one TPE over all arms, as fast after thousands of trials as after ten.

The arm is a categorical parameter of the joint space and all others are conditional on it. So a
point is drawn in two groups, each of them jointly: first the arm, then that arm's parameters. This
is what Optuna's ``multivariate`` and ``group`` amount to here, without drawing for the arms that
were not chosen.

An arm's parameters are drawn from its own trials only. TPE selects the best of all trials as the
good ones before it looks at their parameters, and an arm that is behind would have none among them.
Where a point was drawn before, as soon happens in an arm of few points, another is drawn at random.

An arm's first points are a Latin hypercube (McKay et al. 1979), which has one in each quarter of
the learning rates. Independent random points often leave an arm without any learning rate that
suits it, so that it loses for that and not for what it is.

Optuna's sampler reads every trial that ever ended, at every draw. Here it reads the best, which it
models closely, and the latest, which it weighs most among the others: a number that does not grow.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.declare import Space
from study.config import spaces

SPREAD_PER_ARM = 4
"""First points of an arm, drawn before TPE models it."""
BEST_PER_ARM = 25
"""Best trials of an arm that are remembered: as many as TPE takes for good ones at most
(``optuna.samplers._tpe.sampler.default_gamma``)."""
LATEST = 200
Known = Callable[[str, Mapping[str, Any]], bool]
"""Function that tells whether a point of an arm was drawn before."""


def groups(space: Space) -> dict[str, dict[str, BaseDistribution]]:
    """Arm -> its parameters, named and distributed as ``spaces.suggest`` asks for them."""
    return {
        name: {
            f"{name}/{k}": spaces.distribution(values) for k, values in spaces.ranges(arm).items()
        }
        for name, arm in space.arms.items()
    }


class TrialMemory:
    """The trials that the sampler learns from: complete or pruned, the best of each arm and the
    latest of all. Which these are depends on what ended, not on the order in which it did."""

    def __init__(self, objectives: int = 1) -> None:
        """Start without trials. With several ``objectives``, an arm's best are its best by each of
        them."""
        self.objectives = objectives
        self.ended = 0
        """Number of trials that could be learnt from, forgotten ones included."""
        self._best: dict[tuple[str, int], list[tuple[tuple[float, float], int]]] = {}
        """(arm, objective) -> rank and number of its best trials, the best first."""
        self._latest: list[int] = []
        """Numbers of the latest trials, ascending."""
        self._trials: dict[int, FrozenTrial] = {}

    def add(self, trial: FrozenTrial) -> None:
        """Take in a trial that has ended."""
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        self.ended += 1
        self._trials[trial.number] = trial
        insort(self._latest, trial.number)
        dropped = set(self._latest[:-LATEST])
        del self._latest[:-LATEST]
        for objective in range(self.objectives):
            best = self._best.setdefault((trial.params["arm"], objective), [])
            insort(best, (_rank(trial, objective), trial.number))
            dropped |= {number for _, number in best[BEST_PER_ARM:]}
            del best[BEST_PER_ARM:]
        for number in dropped & self._trials.keys():
            if number not in self._latest and not self._is_good(number):
                del self._trials[number]

    def _is_good(self, number: int) -> bool:
        arm = self._trials[number].params["arm"]
        of_arm = [self._best[arm, objective] for objective in range(self.objectives)]
        return any(number == other for best in of_arm for _, other in best)

    def trials(self) -> list[FrozenTrial]:
        """The remembered trials, by ascending number."""
        return [self._trials[number] for number in sorted(self._trials)]


class Sampler(BaseSampler):
    """Optuna sampler for one trial. What it draws depends on its arguments alone."""

    def __init__(
        self,
        memory: TrialMemory,
        running: list[FrozenTrial],
        groups: Mapping[str, Mapping[str, BaseDistribution]],
        *,
        draws: Mapping[str, int],
        known: Known,
        arm: str | None,
        seed: int,
    ) -> None:
        """Prepare the draw.

        Args:
            memory: ended trials to learn from.
            running: trials whose results are awaited; points like theirs are avoided.
            groups: arm -> its parameters.
            draws: arm -> points drawn for it before.
            known: tells whether a point was drawn before. It must not be so of all points of an arm
                that may be drawn.
            arm: the arm, if it is decided. Otherwise it is drawn at random until there are as many
                points as all arms' first ones together, and then by TPE.
            seed: seed of the study.
        """
        self.groups, self.draws, self.known, self.seed = groups, draws, known, seed
        draw_seed = (seed * 1_000_003 + sum(draws.values())) % 2**32
        self.random = RandomSampler(seed=draw_seed)
        self.chance = np.random.default_rng(draw_seed)
        self.tpe = TPESampler(multivariate=True, n_startup_trials=0, seed=draw_seed)
        self.remembered = [*memory.trials(), *running]
        self.directions = [StudyDirection.MINIMIZE] * memory.objectives
        self._drawn: dict[str, Any] = {} if arm is None else {"arm": arm}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """An empty space: Optuna would ask for relative values before the arm is known."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """No values; see ``infer_relative_search_space``."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of one parameter. When the first of a group is asked for, the whole group is
        drawn."""
        if param_name not in self._drawn:
            if param_name == "arm":
                if sum(self.draws.values()) < SPREAD_PER_ARM * len(self.groups):
                    return self.random.sample_independent(
                        study, trial, param_name, param_distribution
                    )
                group = {param_name: param_distribution}
                self._drawn |= self._modelled(group, self.remembered, trial)
            else:
                self._drawn |= self._point(trial.params["arm"], trial)
        return self._drawn[param_name]

    def _point(self, arm: str, trial: FrozenTrial) -> dict[str, Any]:
        """A point of ``arm`` that was not drawn before."""
        group = {n: d for n, d in sorted(self.groups[arm].items()) if not d.single()}
        if self.draws.get(arm, 0) < SPREAD_PER_ARM:
            point = spread(group, self.seed, arm)[self.draws.get(arm, 0)]
        else:
            of_arm = [other for other in self.remembered if other.params["arm"] == arm]
            point = self._modelled(group, of_arm, trial)
        while self.known(arm, point):
            point = {name: _at(self.chance.random(), d) for name, d in group.items()}
        return point

    def _modelled(
        self, group: dict[str, BaseDistribution], trials: list[FrozenTrial], trial: FrozenTrial
    ) -> dict[str, Any]:
        """Values for ``group`` that TPE draws for ``trial``, having seen ``trials``."""
        view = optuna.create_study(storage=_RememberedTrials(trials), directions=self.directions)
        return self.tpe.sample_relative(view, trial, group)


def spread(group: Mapping[str, BaseDistribution], seed: int, arm: str) -> list[dict[str, Any]]:
    """An arm's first points: a Latin hypercube over its ranges."""
    chance = np.random.default_rng([seed, *arm.encode()])
    cells = chance.permuted(np.tile(np.arange(SPREAD_PER_ARM), (len(group), 1)), axis=1)
    shares = (cells + chance.random(cells.shape)) / SPREAD_PER_ARM
    return [
        {name: _at(share, d) for share, (name, d) in zip(point, group.items(), strict=True)}
        for point in shares.T
    ]


def _at(share: float, distribution: BaseDistribution) -> Any:
    """The value of a range below which ``share`` of the range lies."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** share if distribution.log else low + (high - low) * share
    return min(max(float(value), low), high)


class _RememberedTrials(InMemoryStorage):
    """Optuna storage of a study that has the remembered trials and no others: what TPE reads."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self.trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The remembered trials in one of ``states``. They are never changed, so never copied."""
        return [trial for trial in self.trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store nothing: TPE leaves notes for other processes that draw, and there are none."""


def _rank(trial: FrozenTrial, objective: int) -> tuple[float, float]:
    """Sort key in TPE's own order: complete trials by value, then pruned ones that got furthest."""
    if trial.state is TrialState.COMPLETE:
        return float("-inf"), trial.values[objective]
    step, value = max(trial.intermediate_values.items(), default=(-1, 0.0))
    return -float(step), value
