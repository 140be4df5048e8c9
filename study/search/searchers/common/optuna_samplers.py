"""Optuna's own samplers as searchers, by the names of their classes.

They see what the project's searchers see: the trials of one arm. ``GPSampler`` ignores stopped
trials, so it is shown them as complete ones with the loss that is expected of them
(``expected_losses.py``), and so are the genetic algorithms. Samplers that keep a state of their own
between draws (``CmaEsSampler``) are not among them: a study that is resumed has no such state.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.search.searchers.common import expected_losses
from study.search.searchers.common.known_trials import Past, Point

LATEST = 75
"""Trials that ``GPSampler`` is shown at most, the latest: its time grows with their cube."""


class NumberedQmc(QMCSampler):
    """Sobol sequence, of which the point of a given number is drawn. Optuna's class counts points
    in a study's storage."""

    def __init__(self, seed: int, number: int) -> None:
        super().__init__(seed=seed, scramble=True)
        self.number = number

    def _find_sample_id(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution]
    ) -> int:
        return self.number


class _OneGeneration:
    """Makes a genetic algorithm of Optuna draw from the trials that it is shown, all of them the
    generation before. Optuna's classes note in a study's storage which trial is of which
    generation."""

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        return 1

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False) if generation == 0 else []


class Nsga2(_OneGeneration, NSGAIISampler):
    """NSGA-II (Deb et al. 2002)."""


class Nsga3(_OneGeneration, NSGAIIISampler):
    """NSGA-III (Deb and Jain 2014)."""


GENETIC = {"NSGAIISampler": Nsga2, "NSGAIIISampler": Nsga3}


def point(past: Past, arm: str, name: str) -> Point:
    """The next point of ``arm``, drawn by the sampler called ``name``. The first points for those
    that learn from trials are spread over its ranges."""
    ranges, own, seed = past.ranges(arm), past.of_arm(arm), past.seed_of_draw
    first = past.first(arm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name in ("RandomSampler", "BruteForceSampler"):
            # Which is all that they do: no point is drawn twice by any searcher.
            return past.random(arm)
        if name == "QMCSampler":
            return past.drawn_by(NumberedQmc(past.seed, past.draws.get(arm, 0)), ranges, own)
        if first is not None:
            return first
        if name == "TPESampler":  # with Optuna's defaults: each parameter for itself
            tpe = TPESampler(n_startup_trials=0, seed=seed)
            return {n: past.drawn_by(tpe, {n: d}, own)[n] for n, d in ranges.items()}
        if past.objectives == 1:
            own = _as_complete(own, ranges, None if name in GENETIC else LATEST)
        if name in GENETIC:
            return past.random(arm) | _child(past, own, ranges, GENETIC[name](seed=seed))
        process = GPSampler(n_startup_trials=2, seed=seed)
        return past.drawn_by(process, ranges, own) or past.random(arm)


def _child(
    past: Past,
    own: Sequence[FrozenTrial],
    ranges: Mapping[str, BaseDistribution],
    sampler: Nsga2 | Nsga3,
) -> Point:
    """The next point of an arm by a genetic algorithm: the child of its best trials before the
    present generation. Values that mutate are left out, as all are in the first generation."""
    complete = [trial for trial in own if trial.state is TrialState.COMPLETE]
    size = sampler.population_size
    assert size is not None
    before = complete[: len(complete) // size * size]
    return past.drawn_by(sampler, ranges, before) if before else {}


def _as_complete(
    own: Sequence[FrozenTrial], ranges: dict[str, BaseDistribution], most: int | None
) -> list[FrozenTrial]:
    """An arm's trials, the stopped ones as complete, and of those that have ended the latest
    ``most``."""
    ended = expected_losses.ended(own)
    losses: Any = expected_losses.losses(ended)
    told = [
        create_trial(
            params={name: trial.params[name] for name in ranges},
            distributions=ranges,
            value=float(loss),
        )
        for trial, loss in zip(ended, losses, strict=True)
    ]
    running = [trial for trial in own if trial.state is TrialState.RUNNING]
    return [*(told if most is None else told[-most:]), *running]
