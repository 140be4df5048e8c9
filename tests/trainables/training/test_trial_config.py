"""A trial's settings make sense, and its learning rate has its schedule."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.trainables.training.trials import config, losses, warmed
from trainables.engine.training_settings import TrainingSettings
from trainables.errors import BadInput
from trainables.training.trial import Trial
from trainables.workload import Workload


def test_the_schedule(workload: Workload) -> None:
    schedule = config(workload, lr=2.0, max_examples=100, batch_size=2, training=warmed(0.2)).lr_at
    assert [schedule(n + 1) for n in (5, 10, 20)] == pytest.approx([0.5, 1.0, 2.0])
    assert [schedule(n + 1) for n in (40, 60, 100, 120)] == pytest.approx(
        [1 + math.sqrt(0.5), 1.0, 0.0, 0.0]
    )
    assert config(workload, lr=2.0, training=warmed(0), batch_size=2).lr_at(1) == 2.0


@pytest.mark.parametrize(
    ("schedule", "rates"), [("linear", [2.0, 1.5, 1.0, 0.0]), ("constant", [2.0, 2.0, 2.0, 2.0])]
)
def test_other_schedules_rise_alike(workload: Workload, schedule: str, rates: list[float]) -> None:
    training = TrainingSettings(warmup=0.2, schedule=schedule)
    lr_at = config(workload, lr=2.0, max_examples=100, batch_size=2, training=training).lr_at
    assert [lr_at(n + 1) for n in (5, 10)] == pytest.approx([0.5, 1.0])
    assert [lr_at(n + 1) for n in (20, 40, 60, 100)] == pytest.approx(rates)


@pytest.mark.parametrize("max_examples", [1, 8, 9, 100])
def test_no_step_is_wasted_on_a_learning_rate_of_0(workload: Workload, max_examples: int) -> None:
    few = config(workload, lr=1.0, max_examples=max_examples, training=warmed(0))
    steps = math.ceil(max_examples / few.batch_size)
    rates = [few.lr_at(few.batch_size * step) for step in range(1, steps + 1)]
    assert all(1 > rate > 0 for rate in rates)
    assert sum(rates) / steps == pytest.approx(0.5, abs=1e-9), "a cosine's mean"


def test_the_schedule_reaches_the_optimizer(workload: Workload) -> None:
    """Two trials that differ in nothing but what comes after the first step agree on that step."""
    short, long = (
        Trial(workload, config(workload, "layernorm", max_examples=n, training=warmed(0)))
        for n in (16, 64)
    )
    assert losses(short, 1) == losses(long, 1)
    assert losses(short, 1) != losses(long, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0),
        ("lr", -1e-3),
        ("lr", math.nan),
        ("lr", math.inf),
        ("max_examples", 0),
        ("batch_size", -1),
    ],
)
def test_settings_that_make_no_sense_are_refused(workload: Workload, name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"{name} must .* but got {value}"):
        config(workload, **{name: value})
