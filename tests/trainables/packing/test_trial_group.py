"""Trials of a group come, go and fail without any effect on the others."""

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


def config(workload: Workload, method: str = "lora", **settings: Any) -> TrialConfig:
    return TrialConfig(
        **{
            "recipe": Recipe.from_plain(
                {slot: {"method": method, "everywhere": True} for slot in workload.model.slots}
            ),
            "lr": 3e-3,
            "seed": 0,
            "max_examples": 64,
            "batch_size": 8,
            **settings,
        }
    )


def drive(group: TrialGroup, steps: int = 100) -> list[Arrival]:
    """Step until a trial arrives."""
    for _ in range(steps):
        if arrivals := group.step():
            return arrivals
    return []


def test_trials_come_and_go_at_any_step(workload: Workload, tmp_path: Path) -> None:
    """Each trial reports what it reports alone."""
    group = TrialGroup(workload, places=2)
    one, other = config(workload, "layernorm"), config(workload, "lora", batch_size=4)
    first = group.enter("one", one)
    group.train_to("one", 16)
    assert group.step() == []
    group.enter("other", other)
    group.train_to("other", 12)
    arrived = [a for _ in range(4) for a in group.step()]
    assert [a.key for a in arrived] == ["one", "other"]
    alone = Trial(workload, one), Trial(workload, other)
    expected = [alone[0].train(16), alone[1].train(12)]
    assert [a.train_loss for a in arrived] == pytest.approx(expected, rel=1e-5)
    assert first.validation_loss() == pytest.approx(alone[0].validation_loss(), rel=1e-5)
    first.save(tmp_path)
    group.leave("one")
    restored = group.enter("one again", one, checkpoint=tmp_path)
    assert restored.examples_seen == 16
    group.train_to("one again", 32)
    (arrival,) = drive(group)
    assert arrival.train_loss == pytest.approx(alone[0].train(32), rel=1e-5)


def test_who_is_there_arrives_at_once(workload: Workload) -> None:
    group = TrialGroup(workload, places=1)
    assert group.step() == []
    group.enter("a", config(workload))
    assert group.step() == []
    group.train_to("a", 0)
    assert group.step() == [Arrival(key="a", train_loss=0.0)]
    assert group.step() == []


def test_one_that_diverges_leaves_the_others_alone(workload: Workload) -> None:
    group = TrialGroup(workload, places=2)
    bad = group.enter("bad", config(workload))
    group.enter("good", config(workload))
    with torch.no_grad():
        next(iter(bad.applied.parameters.values())).fill_(math.nan)
    for key in ("bad", "good"):
        group.train_to(key, 16)
    (arrival,) = group.step()
    assert (arrival.key, type(arrival.error)) == ("bad", Diverged)
    group.leave("bad")
    (arrival,) = group.step()
    assert (arrival.key, arrival.error) == ("good", None)
    alone = Trial(workload, config(workload))
    assert arrival.train_loss == pytest.approx(alone.train(16), rel=1e-5)


def test_what_trains_nothing_is_not_said_to_step_alone(workload: Workload) -> None:
    group = TrialGroup(workload, places=2)
    group.enter("untuned", config(workload, "frozen"))
    group.enter("other", config(workload, "lora"))
    assert not group.alone_reasons


def test_what_trains_nothing_may_stay_but_not_train(workload: Workload, tmp_path: Path) -> None:
    group = TrialGroup(workload, places=1)
    trial = group.enter("f", config(workload, "frozen"), checkpoint=tmp_path)
    assert math.isfinite(trial.validation_loss())
    group.train_to("f", 8)
    (arrival,) = group.step()
    assert isinstance(arrival.error, BadInput)


@pytest.mark.parametrize("fails", ["passes of more than two", "what is done ahead"])
def test_memory_that_is_out_again_and_again_costs_no_trial_a_step(
    workload: Workload, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    group = TrialGroup(workload, places=8)
    backward = Pack.backward

    def no_more(pack: Pack, members: Sequence[PackMember]) -> torch.Tensor:
        if len(members) > 2:
            raise MemoryError
        return backward(pack, members)

    def never(*_: object) -> None:
        raise torch.OutOfMemoryError

    if fails == "what is done ahead":
        monkeypatch.setattr(Workload, "computes_ahead", True)
        monkeypatch.setattr(Pack, "prepare", never)
    else:
        monkeypatch.setattr(Pack, "backward", no_more)
    for seed in range(8):
        group.enter(str(seed), config(workload, seed=seed))
        group.train_to(str(seed), 16)
    arrivals = [*group.step(), *group.step()]
    assert sorted(arrival.key for arrival in arrivals) == sorted(map(str, range(8)))
    assert {group.trial(str(seed)).examples_seen for seed in range(8)} == {16}
    assert not [arrival.error for arrival in arrivals if arrival.error]
