"""What a score costs: against closed forms where there are some."""

import math
from dataclasses import replace

import numpy as np
import pytest

from study.analysis.efficiency import budget_curves, learning_rates, pareto
from study.analysis.efficiency_types import COSTS
from study.analysis.result_types import ArmResult
from study.statistics.score_types import Score
from study.trials.record import Outcome, Rung, TrialRecord
from study.trials.spec import Kind, TrialSpec


def trial(
    number: int,
    *,
    lr: float = 1e-3,
    loss: float = 1.0,
    accuracy: float | None = 50.0,
    seconds: float = 10.0,
) -> TrialRecord:
    spec = TrialSpec(
        kind=Kind.SEARCH,
        arm="a",
        parameters={"lr": lr},
        recipe={},
        lr=lr,
        seed=0,
        max_examples=960,
        batch_size=32,
        stops=(96, 960),
        base="",
    )
    rung = Rung(
        examples_seen=96, validation_loss=loss, train_loss=1.0, seconds=1.0, reported_at=0.0
    )
    return TrialRecord(
        spec=spec,
        number=number,
        started_at=0.0,
        rungs=[rung] if math.isfinite(loss) else [],
        outcome=Outcome.COMPLETE if math.isfinite(loss) else Outcome.DIVERGED,
        costs={"seconds": seconds},
        scores={} if accuracy is None else {"validation.overall": accuracy},
    )


def arm(name: str, mean: float, cost: float) -> ArmResult:
    return ArmResult(
        arm=name,
        test={"overall": Score(mean=mean, low=mean - 1, high=mean + 1)},
        costs=dict.fromkeys(COSTS, cost),
        trials={},
        search_seconds=0.0,
        best=None,
        seeds=(),
        collapsed=False,
    )


def test_on_the_front_is_whom_nobody_beats_for_less() -> None:
    arms = [arm("best", 60, 100), arm("dear", 58, 200), arm("cheap", 50, 1), arm("poor", 40, 2)]
    arms += [arm("as best", 60, 100), replace(arm("lost", 0, 0), test=None)]
    assert pareto(arms)["seconds"] == ("best", "cheap", "as best")


def test_the_curve_is_the_expected_best_of_so_many_draws() -> None:
    """Tang et al. 2020: with trials of equal cost, the expected maximum of n of N trials."""
    accuracies = [30.0, 40.0, 50.0, 60.0, 70.0]
    trials = [trial(i, loss=100 - a, accuracy=a) for i, a in enumerate(accuracies)]
    found = budget_curves({"a": trials}, untuned=20.0)
    assert found is not None
    for point in found.arms["a"]:
        draws = int(point.seconds / 10 + 1e-9)
        ways = np.array([math.comb(below, draws) for below in range(6)])
        expected = (np.diff(ways) * accuracies).sum() / ways[-1] if draws else 20.0
        assert point.mean == pytest.approx(expected, abs=1.0)
        assert point.low <= point.mean <= point.high


def test_who_leads_depends_on_the_budget() -> None:
    quick = [trial(i, loss=1 - i / 100, accuracy=50 + i, seconds=10) for i in range(10)]
    slow = [trial(i, loss=1 - i / 100, accuracy=70 + i, seconds=300) for i in range(5)]
    found = budget_curves({"quick": quick, "slow": slow * 2}, untuned=20.0)
    assert found is not None
    early, _, late = found.leaders
    assert early.seconds == pytest.approx(5) and early.arm is None
    assert late.seconds == pytest.approx(100) and late.arm == "quick"
    again = budget_curves({"quick": quick * 40, "slow": slow * 4}, untuned=20.0)
    assert again is not None and again.leaders[-1].arm == "slow"


def test_stopped_trials_cost_and_give_nothing() -> None:
    stopped = [trial(i, accuracy=None, loss=9.0) for i in range(9)]
    assert budget_curves({"a": stopped}, untuned=20.0) is None
    found = budget_curves({"a": [*stopped, trial(9, accuracy=50.0)]}, untuned=20.0)
    assert found is not None
    point = found.arms["a"][-1]
    draws = int(point.seconds / 10 + 1e-9)
    assert point.mean == pytest.approx(20 + 30 * draws / 10, abs=1.5)
    assert point.seconds <= 100 * (1 + 1e-9)


def test_the_good_range_is_where_the_loss_is_near_the_best() -> None:
    # A parabola over decades: within 5 % of its lowest, 1, for half a decade to each side.
    rates = np.arange(-5.1, -0.9, 0.25)
    trials = [trial(i, lr=10**r, loss=1 + 0.2 * (r + 3) ** 2) for i, r in enumerate(rates)]
    found = learning_rates({"a": trials})["a"]
    assert found is not None
    assert found.decades == pytest.approx(1.0, abs=0.1)
    assert math.log10(found.low) == pytest.approx(-3.5, abs=0.1)
    assert not found.open_low and not found.open_high
    # Another setting that is bad at a good learning rate does not narrow it.
    same = learning_rates({"a": [*trials, trial(99, lr=1.1e-3, loss=5.0)]})["a"]
    assert same is not None and same.decades == found.decades


def test_a_range_that_was_not_seen_to_end_is_open() -> None:
    trials = [trial(i, lr=10.0 ** (-5 + i), loss=3.0 - i / 2) for i in range(5)]
    found = learning_rates({"a": trials})["a"]
    assert found is not None and found.open_high and not found.open_low
    diverged = learning_rates({"a": [*trials, trial(9, lr=1.0, loss=math.inf)]})["a"]
    assert diverged is not None and not diverged.open_high
    assert diverged.high == pytest.approx(10**-0.5)


def test_too_few_trials_say_nothing() -> None:
    assert learning_rates({"a": [trial(0), trial(1)], "b": []}) == {"a": None, "b": None}
