"""Which search trials count as collapsed, judged by their validation losses alone."""

import dataclasses

import pytest

from study.search.unsteady_arms import RISE, UnsteadyArms
from study.trials.record import Outcome, Rung, TrialEnd, TrialRecord
from study.trials.spec import TrialSpec
from tests.study.made_up import play, rules, rung
from tests.study.search.test_scheduler import Begin

RUNGS = (100, 300, 900)
Losses = tuple[float, ...]
STEADY: dict[float, Losses] = {
    1e-4: (3.0, 2.9),
    3e-4: (2.9, 2.6),
    1e-3: (2.5, 1.8, 1.2),
    3e-3: (1.8, 1.0, 0.6),
}
"""Learning rate -> losses of an arm that trains steadily; the last is its best trial."""


@pytest.fixture
def spec(begin: Begin) -> TrialSpec:
    drawn = begin().next()
    assert drawn is not None
    return drawn


def collapsed(spec: TrialSpec, trials: dict[float, Losses], arm: str = "lora") -> float | None:
    """Lowest learning rate at which a trial counts as collapsed; the best has the lowest loss of
    those that got furthest."""
    records = [
        TrialRecord(
            spec=dataclasses.replace(spec, arm=arm, lr=lr),
            number=number,
            started_at=0.0,
            outcome=Outcome.COMPLETE if len(losses) == len(RUNGS) else Outcome.PRUNED,
            rungs=[
                Rung(
                    examples_seen=seen,
                    validation_loss=loss,
                    train_loss=loss,
                    seconds=1.0,
                    reported_at=0.0,
                )
                for seen, loss in zip(RUNGS, losses, strict=False)
            ],
        )
        for number, (lr, losses) in enumerate(trials.items())
    ]
    best = min(records, key=lambda record: (-len(record.rungs), record.loss))
    return UnsteadyArms(1, RUNGS, records).collapsed_at([best]).get(arm)


@pytest.mark.parametrize(
    ("trial", "counts"),
    [
        ((2.0, 1.2, 0.7), False),
        ((2.9, 2.9), False),  # slow: another setting has it learn less at a larger learning rate
        ((2.0, 2.4), False),  # by less than a third
        ((2.0, 2.7), True),  # it lost what it had learnt
        ((2.0, 1.2, 2.0), True),
        ((4.1,), True),  # worse than slow trials began, and stopped at its first rung
        ((3.8,), False),
    ],
)
def test_a_trial_collapsed_if_its_loss_rose(spec: TrialSpec, trial: Losses, counts: bool) -> None:
    assert RISE == 1.3
    assert collapsed(spec, {**STEADY, 2e-3: trial}) == (2e-3 if counts else None)


def test_at_a_larger_rate_than_the_best_one_it_says_nothing_of_the_best(spec: TrialSpec) -> None:
    assert collapsed(spec, {**STEADY, 1e-2: (2.0, 4.0)}) is None


def test_where_the_best_rose_too_nothing_collapsed(spec: TrialSpec) -> None:
    """All are trained for too long; the same trial collapsed where the best one did not rise."""
    trial = {1e-3: (2.5, 1.2, 1.7)}
    assert collapsed(spec, {**STEADY, **trial, 3e-3: (1.8, 1.0, 1.6)}) is None
    assert collapsed(spec, {**STEADY, **trial, 3e-3: (1.8, 1.0, 1.2)}) == 1e-3


def test_where_training_begins_is_known_from_two_slower_trials_at_least(spec: TrialSpec) -> None:
    few = {lr: losses for lr, losses in STEADY.items() if lr > 3e-4}
    assert collapsed(spec, {**few, 2e-3: (4.1,)}) is None
    assert collapsed(spec, {**few, 2e-4: (2.9,), 2e-3: (4.1,)}) == 2e-3


def test_each_search_is_judged_by_its_own_trials(spec: TrialSpec) -> None:
    assert collapsed(spec, {**STEADY, 2e-3: (4.1,)}, "lora#2") == 2e-3


def test_an_arm_that_collapsed_has_twice_the_seeds_and_goes_on_so(begin: Begin) -> None:
    given = dataclasses.replace(rules(trials=24), times_if_collapsed=2)
    scheduler = begin(given=given)
    rates: list[float] = []
    while not scheduler.done:
        trial = scheduler.next()
        assert trial is not None
        if trial.arm == "lora" and 3e-4 < trial.lr < 1.5e-3 and not rates:
            rates.append(trial.lr)
            first = dataclasses.replace(rung(trial, trial.stops[0]), validation_loss=100.0)
            scheduler.reported(trial.id, first)
            scheduler.ended(trial.id, TrialEnd(outcome=Outcome.PRUNED))
        else:
            play(scheduler, trial)
    assert rates and scheduler.collapsed_at() == {"lora": rates[0]}
    assert scheduler.seeds() == {"layernorm": 2, "lora": 4} and scheduler.diverged_at() == {}
    assert begin(given=given).done, "it goes on to the same number"
    older = begin(given=dataclasses.replace(given, times_if_collapsed=1))
    assert older.seeds() == {"layernorm": 2, "lora": 2}, "studies that began before"
