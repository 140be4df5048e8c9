"""Activation checkpointing leaves losses as they are and takes less memory."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.placed import everywhere
from trainables.engine.activation_checkpointing import checkpoint_forward, checkpoint_layers
from trainables.errors import BadInput
from trainables.memory.measure import measure_growth
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


def trial(workload: Workload, method: str, *, checkpointing: bool) -> Trial:
    config = TrialConfig(
        recipe=everywhere(workload.model, method=method),
        lr=1e-3,
        seed=0,
        max_examples=80,
        batch_size=8,
    )
    return Trial(workload, config, activation_checkpointing=checkpointing)


@pytest.mark.parametrize("method", ["full", "lora", "prefix", "prompt", "adapter"])
def test_no_loss_changes(workload: Workload, method: str) -> None:
    plain, twice = (trial(workload, method, checkpointing=which) for which in (False, True))
    for _ in range(3):
        assert twice.step() == pytest.approx(plain.step(), rel=1e-6)
    assert twice.validation_loss() == pytest.approx(plain.validation_loss(), rel=1e-6)
    assert twice.answers("test") == plain.answers("test")


def test_less_is_kept(workload: Workload) -> None:
    peaks = []
    for checkpointing in (False, True):
        running = trial(workload, "lora", checkpointing=checkpointing)
        running.step()
        with measure_growth() as grown:
            running.step()
        peaks.append(grown.size)
    assert peaks[1] < 0.8 * peaks[0]


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(BadInput, match="computed twice"):
        checkpoint_layers(nn.Sequential(nn.Linear(2, 2)))


def test_hooks_run_once_where_transformers_checkpoints_the_whole_call() -> None:
    class Twofold(nn.Linear):
        def forward(self, given: Tensor, *, by: float) -> Tensor:
            ran.append("forward")
            return super().forward(given) * by

    ran: list[str] = []
    layer, given = Twofold(3, 3), torch.ones(2, 3, requires_grad=True)
    layer.register_forward_pre_hook(lambda *_: ran.append("hook"))
    plain = layer(given, by=2.0)
    output = checkpoint_forward(partial(layer.__call__, by=2.0), given)
    assert torch.equal(output, plain) and ran == ["hook", "forward"] * 2
    gradients = [torch.autograd.grad(out.sum(), given)[0] for out in (plain, output)]
    assert torch.equal(*gradients) and ran == ["hook", "forward"] * 2 + ["forward"]
    assert "forward" not in vars(layer)
