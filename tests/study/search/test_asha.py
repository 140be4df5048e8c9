"""Rungs and early stopping of each arm, compared with Ray Tune's own ASHA."""

import random

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from search_spaces.declare import Budget
from study.config.budget import levels, reached, stops
from study.search.stoppers.asha import Stopper


def test_levels_are_a_factor_apart_whole_batches_and_end_with_the_budget() -> None:
    assert levels(Budget(max_examples=6400, reduction=3, rungs=3)) == (256, 736, 2144, 6400)
    assert levels(Budget(max_examples=64, reduction=4, rungs=5)) == (32, 64)
    assert levels(Budget(max_examples=100, rungs=0)) == (128,)


def test_trials_of_other_batches_report_at_the_same_rungs() -> None:
    rungs = (18, 54, 162)
    for batch_size in (1, 6, 9):
        assert stops(rungs, batch_size) == rungs
    assert stops(rungs, 16) == (32, 64, 176)
    assert stops(rungs, 64) == (64, 192), "a batch goes past a rung"
    assert [reached(rungs, seen) for seen in (0, 17, 32, 64, 176)] == [0, 0, 18, 54, 162]


def test_the_first_goes_on_and_then_only_the_best_third() -> None:
    rungs = Stopper(reduction=3)
    arrivals = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 0.9, "e": 0.4}
    kept = [name for name, loss in arrivals.items() if rungs.record("lora", name, 64, loss)]
    assert kept == ["a", "c", "e"]


def test_a_slow_arm_is_not_stopped_by_a_fast_one() -> None:
    rungs = Stopper(reduction=3)
    for i in range(9):
        rungs.record("fast", str(i), 64, 0.1)
    assert rungs.record("slow", "x", 64, 9.0)


def test_reporting_a_rung_again_does_not_count_twice() -> None:
    rungs = Stopper(reduction=2)
    rungs.record("lora", "a", 64, 1.0)
    first = rungs.record("lora", "b", 64, 1.5)
    assert rungs.record("lora", "b", 64, 1.5) == first
    assert len(rungs.losses["lora", 64]) == 2


@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_within_an_arm_it_decides_as_ray_tunes_asha(reduction: int) -> None:
    drawn = random.Random(reduction)
    ray = AsyncHyperBandScheduler(
        time_attr="seen",
        metric="loss",
        mode="min",
        max_t=10_000,
        grace_period=1,
        reduction_factor=reduction,
    )
    ours = Stopper(reduction)
    alive = [Trial("made up", stub=True, trial_id=str(i)) for i in range(40)]
    for trial in alive:
        ray.on_trial_add(None, trial)  # type: ignore[arg-type]  # it doesn't look at the controller
    for level in range(3):
        examples = reduction**level
        for trial in list(alive):
            loss = drawn.random()
            result = {"seen": examples, "loss": loss}
            decision = ray.on_trial_result(None, trial, result)  # type: ignore[arg-type]  # nor here
            goes_on = ours.record("arm", trial.trial_id, examples, loss)
            assert goes_on == (decision == TrialScheduler.CONTINUE)
            if not goes_on:
                alive.remove(trial)
    assert 0 < len(alive) < 40
