"""Draws the next point of one joint space of all arms, as fast after 2,000 trials as after ten.

The arm is a categorical parameter of the joint space and all others are conditional on it. So a
point is drawn in two groups, each of them jointly: first the arm, unless it is decided, by TPE over
the trials of all arms; then that arm's parameters, by the searcher (``searchers/``) from its own
trials. Where the searcher draws a point that was drawn before, as soon happens in an arm of few
points, another is drawn at random.

Optuna's samplers read every trial that ever ended, at every draw. Here searchers read the best,
which they model closely, and the latest, which TPE weighs most among the others: a number that does
not grow.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from search_spaces.declare import Space
from study.config import search_methods, spaces
from study.search.searchers.common import optuna_samplers
from study.search.searchers.common.known_trials import (
    LATEST,
    SPREAD_PER_ARM,
    Known,
    Past,
    Point,
    draw_seed,
)

BEST_PER_ARM = 25
"""Best trials of an arm that are remembered: as many as TPE takes for good ones at most
(``optuna.samplers._tpe.sampler.default_gamma``)."""


def groups(space: Space) -> dict[str, dict[str, BaseDistribution]]:
    """Arm -> its parameters, named and distributed as ``spaces.suggest`` asks for them."""
    return {
        name: {
            f"{name}/{k}": spaces.distribution(values) for k, values in spaces.ranges(arm).items()
        }
        for name, arm in space.arms.items()
    }


def searcher(name: str) -> Callable[[Past, str], Point]:
    """The function of a searcher that draws an arm's points.

    Raises:
        BadInput: there is no such searcher.
    """
    search_methods.check_searcher(name)
    if name in search_methods.OPTUNA:
        return partial(optuna_samplers.point, name=name)
    point: Callable[[Past, str], Point] = search_methods.SEARCHERS.find(name).point
    return point


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
        """Remember a trial that has ended."""
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
        search: str = "tpe",
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
            search: name of the searcher that draws an arm's parameters.
        """
        self.memory, self.running, self.groups = memory, running, groups
        self.draws, self.known, self.seed = draws, known, seed
        self.random = RandomSampler(seed=draw_seed(seed, draws))
        self.point = searcher(search)
        self._past: Past | None = None
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
            past = self._past = self._past or self._known_for(trial)
            if param_name == "arm":
                if sum(self.draws.values()) < SPREAD_PER_ARM * len(self.groups):
                    return self.random.sample_independent(
                        study, trial, param_name, param_distribution
                    )
                group = {param_name: param_distribution}
                self._drawn |= past.drawn_by(past.tpe, group, past.trials)
            else:
                self._drawn |= self._new_point(past, trial.params["arm"])
        return self._drawn[param_name]

    def _known_for(self, trial: FrozenTrial) -> Past:
        return Past(
            trials=[*self.memory.trials(), *self.running],
            groups=self.groups,
            draws=self.draws,
            known=self.known,
            seed=self.seed,
            objectives=self.memory.objectives,
            trial=trial,
        )

    def _new_point(self, past: Past, arm: str) -> Point:
        """A point of ``arm`` that was not drawn before."""
        point = self.point(past, arm)
        while self.known(arm, point):
            point = past.random(arm)
        return point


def _rank(trial: FrozenTrial, objective: int) -> tuple[float, float]:
    """Sort key in TPE's own order: complete trials by value, then pruned ones that got furthest."""
    if trial.state is TrialState.COMPLETE:
        return float("-inf"), trial.values[objective]
    step, value = max(trial.intermediate_values.items(), default=(-1, 0.0))
    return -float(step), value
