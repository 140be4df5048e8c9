"""The loop has its golden losses and data order, and fails clearly."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.training.trials import config, losses, warmed
from trainables.errors import BadInput
from trainables.model_contract import Batch
from trainables.training.trial import Diverged, Trial
from trainables.workload import Workload

GOLDEN = Path(__file__).with_name("golden_losses.json")
"""family/method -> training loss of each step, then the validation loss. They hold a refactoring to
the same arithmetic, and so every version of torch and transformers that is allowed: the weights are
``drawn`` by numpy. Where the arithmetic is changed on purpose, write them anew with
``GOLDEN=write pytest tests/trainables/training/test_trial.py -k golden`` and say why in the
commit."""

QUESTIONS = 24  # of the made-up training split


@pytest.mark.parametrize("method", ["layernorm", "lora", "full"])
def test_golden_losses(family: str, made: Callable[..., Workload], method: str) -> None:
    workload = made(family)
    draw(workload.model.network)
    trial = Trial(workload, config(workload, method))
    found = [*losses(trial, 8), trial.validation_loss()]
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("GOLDEN") == "write":
        golden[f"{family}/{method}"] = found
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    if not any(key.startswith(f"{family}/") for key in golden):
        pytest.skip(f"GOLDEN=write pytest -k golden_losses writes those of {family}")
    assert found == pytest.approx(golden[f"{family}/{method}"], rel=1e-4)


def draw(network: torch.nn.Module) -> None:
    """Draw the weights of a random model again, by a generator of numpy whose numbers never change.
    Those of torch and the order in which transformers draws depend on their versions. What is not
    random, such as a LayerNorm of ones, stays."""
    generator = np.random.RandomState(0)
    for _, parameter in sorted(network.named_parameters()):
        if parameter.unique().numel() > 2:  # zeros and a value: an embedding of padding
            drawn = 0.2 * generator.standard_normal(tuple(parameter.shape))
            parameter.data.copy_(torch.from_numpy(drawn))


def test_two_runs_agree_to_the_bit_whatever_runs_beside_them(workload: Workload) -> None:
    dropping = config(workload, tuning={"dropout": 0.3})
    alone = Trial(workload, dropping)
    expected = [*losses(alone, 6), alone.validation_loss()]
    trial, neighbour = Trial(workload, dropping), Trial(workload, config(workload, "full", seed=5))
    found = []
    for _ in range(6):
        torch.rand(7)  # somebody else uses torch's generator
        found += losses(trial, 1)
        losses(neighbour, 1)
    assert [*found, trial.validation_loss()] == expected
    assert trial.answers("test") == alone.answers("test")


def test_the_seed_changes_data_and_adapters(workload: Workload) -> None:
    one, other = (Trial(workload, config(workload, seed=seed)) for seed in (0, 1))
    assert losses(one, 2) != losses(other, 2)


@pytest.mark.parametrize("batch_size", [5, 8])
def test_every_question_is_seen_once_an_epoch(
    workload: Workload, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    seen: list[int] = []
    whole = Workload.batch

    def noted(self: Workload, split: str, indices: Sequence[int]) -> Batch:
        assert split == "train"
        seen.extend(indices)
        return whole(self, split, indices)

    monkeypatch.setattr(Workload, "batch", noted)
    trial = Trial(workload, config(workload, "layernorm", batch_size=batch_size))
    trial.train(3 * QUESTIONS)
    epochs = [seen[i : i + QUESTIONS] for i in range(0, 3 * QUESTIONS, QUESTIONS)]
    assert all(sorted(epoch) == list(range(QUESTIONS)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert trial.examples_seen == math.ceil(3 * QUESTIONS / batch_size) * batch_size


def test_the_mean_loss_is_over_the_steps(workload: Workload) -> None:
    one, other = (Trial(workload, config(workload)) for _ in range(2))
    assert one.train(32) == pytest.approx(sum(losses(other, 4)) / 4, rel=1e-6)


def test_every_validation_question_has_the_same_weight(workload: Workload) -> None:
    whole, model = Trial(workload, config(workload)), workload.model
    pieces = Trial(workload, config(workload), evaluation_batch=3)
    questions = len(workload.rows["validation"])
    alone = [
        float(model.losses(model.network, workload.batch("validation", [i])))
        for i in range(questions)
    ]
    for trial in (whole, pieces):
        assert trial.validation_loss() == pytest.approx(sum(alone) / questions, abs=1e-5)


def test_answers_are_in_the_order_of_the_data(workload: Workload) -> None:
    trial, model = Trial(workload, config(workload), evaluation_batch=3), workload.model
    alone = [
        model.answers(model.network, workload.batch("test", [i]))[0]
        for i in range(len(workload.rows["test"]))
    ]
    assert trial.answers("test") == alone


def test_what_trains_nothing_can_be_looked_at(workload: Workload, tmp_path: Path) -> None:
    trial = Trial(workload, config(workload, "frozen"))
    assert math.isfinite(trial.validation_loss())
    assert len(trial.answers("test")) == len(workload.rows["test"])
    for impossible in (
        lambda: trial.train(8),
        lambda: trial.save(tmp_path),
        lambda: trial.restore(tmp_path),
    ):
        with pytest.raises(BadInput, match="recipe frozen trains nothing"):
            impossible()


@pytest.mark.deepspeed
def test_a_base_that_is_not_on_the_device_is_brought_there_for_each_trial(
    workload: Workload,
) -> None:
    assert workload.resident
    elsewhere = replace(workload, device=torch.device("meta"))
    assert not elsewhere.resident
    brought = Trial(elsewhere, config(workload, "frozen")).losses.network
    assert {p.device.type for p in [*brought.parameters(), *brought.buffers()]} == {"meta"}
    there = workload.device.type
    assert {p.device.type for p in workload.model.network.parameters()} == {there}
    divided = Trial(elsewhere, config(workload, "lora"), deepspeed="3").losses.network
    assert {p.device.type for p in divided.parameters()} == {"cpu"}, "by DeepSpeed, bit by bit"


def test_a_huge_learning_rate_diverges(workload: Workload) -> None:
    trial = Trial(workload, config(workload, "full", lr=1e30, training=warmed(0)))
    with pytest.raises(Diverged, match=r"loss is (nan|inf) at \d+ examples"):
        trial.train(64)
        trial.validation_loss()


def test_a_validation_loss_that_is_no_number_diverges(workload: Workload) -> None:
    trial = Trial(workload, config(workload, "layernorm"))
    with torch.no_grad():
        next(iter(trial.applied.parameters.values())).fill_(math.nan)
    with pytest.raises(Diverged, match="validation loss is nan at 0 examples"):
        trial.validation_loss()
    with pytest.raises(Diverged, match="training loss is nan at 8 examples"):
        trial.train(8)
