"""Importance of settings, where it is known which one makes the loss."""

from random import Random
from typing import Any

import pytest

from search_spaces.declare import Choice, LogUniform, Range
from study.analysis.importance import ALL, importances
from study.trials.record import Rung, TrialRecord
from study.trials.spec import Kind, TrialSpec

RANGES: dict[str, dict[str, Range]] = {
    "layernorm": {"lr": LogUniform(1e-4, 1e-1)},
    "lora": {"lora.rank": Choice(2, 8, 32), "lr": LogUniform(1e-5, 1e-2)},
}


def trial(arm: str, loss: float, **parameters: Any) -> TrialRecord:
    spec = TrialSpec(
        kind=Kind.SEARCH,
        arm=arm,
        parameters={name.replace("_", "."): value for name, value in parameters.items()},
        recipe={},
        lr=parameters["lr"],
        seed=0,
        max_examples=960,
        batch_size=32,
        stops=(96, 960),
        base="",
    )
    rung = Rung(
        examples_seen=96, validation_loss=loss, train_loss=1.0, seconds=1.0, reported_at=0.0
    )
    return TrialRecord(spec=spec, number=0, started_at=0.0, rungs=[rung])


def searched(count: int, weights: dict[str, float]) -> dict[str, list[TrialRecord]]:
    """Trials whose loss is a weighted sum of what method, rank and learning rate do."""
    drawn, found = Random(0), dict[str, list[TrialRecord]](layernorm=[], lora=[])
    for i in range(count):
        arm = ("layernorm", "lora")[i % 2]
        exponent, rank = drawn.uniform(-4, -2), drawn.choice((2, 8, 32))
        parts = {"method": arm == "lora", "rank": rank == 2, "lr": abs(exponent + 3)}
        loss = 1 + sum(weights.get(name, 0.0) * float(part) for name, part in parts.items())
        also = {"lora_rank": rank} if arm == "lora" else {}
        found[arm].append(trial(arm, loss, lr=10**exponent, **also))
    return found


@pytest.mark.parametrize("matters", ["method", "rank", "lr"])
def test_the_setting_that_makes_the_loss_is_the_most_important(matters: str) -> None:
    found = importances(searched(300, {matters: 1.0}), RANGES)
    shares = {entry.of: entry.shares for entry in found}
    # Layernorm has one setting only, and if only the method matters, all of lora's are equal.
    assert set(shares) == ({ALL} if matters == "method" else {ALL, "lora"})
    for of in shares:
        assert sum(shares[of].values()) == pytest.approx(1)
    if matters != "rank":  # half of the trials have no rank
        assert next(iter(shares[ALL])) == matters
    if matters != "method":
        assert next(iter(shares["lora"])) == {"rank": "lora.rank", "lr": "lr"}[matters]
    assert not any(entry.warning for entry in found)


def test_few_trials_are_warned_about_and_very_few_say_nothing() -> None:
    (all_arms, lora) = importances(searched(24, {"lr": 1.0}), RANGES)
    assert all_arms.warning == "24 trials for 3 settings: 30 would carry it"
    assert lora.trials == 12 and lora.warning
    assert importances(searched(4, {"lr": 1.0}), RANGES) == ()


@pytest.mark.parametrize("chosen", ["layernorm", "lora"])
def test_a_setting_that_is_a_choice_in_one_arm_only_is_not_compared_between_arms(
    chosen: str,
) -> None:
    records, grid = searched(300, {"method": 1.0, "lr": 1.0}), (1e-4, 1e-3, 1e-2)
    records[chosen] = [
        trial(chosen, r.loss, **{**r.spec.parameters, "lr": grid[i % 3]})
        for i, r in enumerate(records[chosen])
    ]
    ranges = {**RANGES, chosen: {**RANGES[chosen], "lr": Choice(*grid)}}
    shares = {entry.of: entry.shares for entry in importances(records, ranges)}
    assert set(shares[ALL]) == {"method", "lora.rank"}
    assert set(shares["lora"]) == {"lora.rank", "lr"}


def test_tuples_are_settings_like_others() -> None:
    ranges: dict[str, dict[str, Range]] = {
        "lora": {"lora.targets": Choice(("query",), ("ffn",)), "lr": LogUniform(1e-4, 1e-2)}
    }
    drawn = Random(0)
    records = [
        trial(
            "lora",
            1.0 + i % 2,
            lora_targets=[("query", "ffn")[i % 2]],
            lr=drawn.uniform(1e-4, 1e-2),
        )
        for i in range(200)
    ]
    (lora,) = importances({"lora": records}, ranges)
    assert next(iter(lora.shares)) == "lora.targets"
