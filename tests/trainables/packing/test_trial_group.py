"""The shared lane: trials come, go and fail without any other noticing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.errors import BadInput
from trainables.packing.pack import Pack, PackMember
from trainables.packing.trial_group import Arrival, TrialGroup
from trainables.recipe import Recipe
from trainables.training.trial import Diverged, Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen features are not kept among the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def config(workload: Workload, method: str = "lora", **settings: Any) -> TrialConfig:
    return TrialConfig(
        **{
            "recipe": Recipe.of(
                {slot: {"method": method, "everywhere": True} for slot in workload.model.slots}
            ),
            "lr": 3e-3,
            "seed": 0,
            "max_examples": 64,
            "batch_size": 8,
            **settings,
        }
    )


def drive(lane: TrialGroup, steps: int = 100) -> list[Arrival]:
    """Step until somebody arrives."""
    for _ in range(steps):
        if arrivals := lane.step():
            return arrivals
    return []


def test_trials_come_and_go_at_any_step(workload: Workload, tmp_path: Path) -> None:
    """What each of them says is what it says alone."""
    lane = TrialGroup(workload, places=2)
    one, other = config(workload, "layernorm"), config(workload, "lora", batch_size=4)
    first = lane.enter("one", one)
    lane.train_to("one", 16)
    assert lane.step() == []
    lane.enter("other", other)
    lane.train_to("other", 12)
    arrived = [a for _ in range(4) for a in lane.step()]
    assert [a.key for a in arrived] == ["one", "other"]
    alone = Trial(workload, one), Trial(workload, other)
    expected = [alone[0].train(16), alone[1].train(12)]
    assert [a.train_loss for a in arrived] == pytest.approx(expected, rel=1e-5)
    assert first.validation_loss() == pytest.approx(alone[0].validation_loss(), rel=1e-5)
    first.save(tmp_path)
    lane.leave("one")
    restored = lane.enter("one again", one, checkpoint=tmp_path)
    assert restored.examples_seen == 16
    lane.train_to("one again", 32)
    (arrival,) = drive(lane)
    assert arrival.train_loss == pytest.approx(alone[0].train(32), rel=1e-5)


def test_who_is_there_arrives_at_once(workload: Workload) -> None:
    lane = TrialGroup(workload, places=1)
    assert lane.step() == []
    lane.enter("a", config(workload))
    assert lane.step() == []
    lane.train_to("a", 0)
    assert lane.step() == [Arrival(key="a", train_loss=0.0)]
    assert lane.step() == []


def test_one_that_diverges_leaves_the_others_alone(workload: Workload) -> None:
    lane = TrialGroup(workload, places=2)
    bad = lane.enter("bad", config(workload))
    lane.enter("good", config(workload))
    with torch.no_grad():
        next(iter(bad.applied.parameters.values())).fill_(math.nan)
    for key in ("bad", "good"):
        lane.train_to(key, 16)
    (arrival,) = lane.step()
    assert (arrival.key, type(arrival.error)) == ("bad", Diverged)
    lane.leave("bad")
    (arrival,) = lane.step()
    assert (arrival.key, arrival.error) == ("good", None)
    alone = Trial(workload, config(workload))
    assert arrival.train_loss == pytest.approx(alone.train(16), rel=1e-5)


def test_what_trains_nothing_is_not_said_to_step_alone(workload: Workload) -> None:
    lane = TrialGroup(workload, places=2)
    lane.enter("untuned", config(workload, "frozen"))
    lane.enter("other", config(workload, "lora"))
    assert not lane.alone


def test_what_trains_nothing_may_stay_but_not_train(workload: Workload, tmp_path: Path) -> None:
    lane = TrialGroup(workload, places=1)
    trial = lane.enter("f", config(workload, "frozen"), checkpoint=tmp_path)
    assert math.isfinite(trial.validation_loss())
    lane.train_to("f", 8)
    (arrival,) = lane.step()
    assert isinstance(arrival.error, BadInput)


@pytest.mark.parametrize("fails", ["passes of more than two", "what is done ahead"])
def test_memory_that_is_out_again_and_again_costs_no_trial_a_step(
    workload: Workload, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    lane = TrialGroup(workload, places=8)
    backward = Pack.backward

    def no_more(pack: Pack, guests: Sequence[PackMember]) -> torch.Tensor:
        if len(guests) > 2:
            raise MemoryError
        return backward(pack, guests)

    def never(*_: object) -> None:
        raise torch.OutOfMemoryError

    if fails == "what is done ahead":
        monkeypatch.setattr(Workload, "computes_ahead", True)
        monkeypatch.setattr(Pack, "prepare", never)
    else:
        monkeypatch.setattr(Pack, "backward", no_more)
    for seed in range(8):
        lane.enter(str(seed), config(workload, seed=seed))
        lane.train_to(str(seed), 16)
    arrivals = [*lane.step(), *lane.step()]
    assert sorted(arrival.key for arrival in arrivals) == sorted(map(str, range(8)))
    assert {lane.trial(str(seed)).examples_seen for seed in range(8)} == {16}
    assert not [arrival.error for arrival in arrivals if arrival.error]
