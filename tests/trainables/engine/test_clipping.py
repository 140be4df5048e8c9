"""Gradients of several trials are clipped in one pass as each of them would be by PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.trainables.training.trials import config
from trainables.engine import plain_engine
from trainables.engine.plain_engine import Plain
from trainables.engine.training_settings import TrainingSettings
from trainables.training.trial import Trial
from trainables.workload import Workload

LARGEST = 0.05


def engines(workload: Workload, *methods: str, norm: float = LARGEST) -> Iterator[Plain]:
    """Engines whose parameters have gradients, but for the last of each."""
    drawn = torch.Generator().manual_seed(0)
    for method in methods:
        settings = TrainingSettings(max_grad_norm=norm)
        engine = Trial(workload, config(workload, method, training=settings)).engine
        assert isinstance(engine, Plain)
        for parameter in [*engine.parameters.values()][:-1]:
            parameter.grad = torch.randn(parameter.shape, generator=drawn)
        yield engine


def test_each_is_clipped_to_its_own_norm(workload: Workload) -> None:
    """Two with as many gradients, one with more, one within its norm and one without any."""
    some = [*engines(workload, "layernorm", "layernorm", "lora")]
    some += engines(workload, "layernorm", norm=1e6)
    some += engines(workload, "layernorm", norm=0.0)
    expected = []
    for engine in some:
        copies = [nn.Parameter(torch.empty_like(gradient)) for gradient in engine.gradients]
        for copy, gradient in zip(copies, engine.gradients, strict=True):
            copy.grad = gradient.clone()
        if engine.max_grad_norm:
            nn.utils.clip_grad_norm_(copies, engine.max_grad_norm)
        expected.append([copy.grad for copy in copies])
    plain_engine.clip(some)
    for engine, gradients in zip(some, expected, strict=True):
        for found, gradient in zip(engine.gradients, gradients, strict=True):
            assert gradient is not None
            torch.testing.assert_close(found, gradient, rtol=1e-6, atol=0.0)
    norms = [float(torch.cat([g.flatten() for g in engine.gradients]).norm()) for engine in some]
    assert norms[:3] == pytest.approx([LARGEST] * 3, rel=1e-4)
    assert min(norms[3:]) > 10 * LARGEST


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_that_diverges_changes_no_other(workload: Workload, value: float) -> None:
    alone, beside, diverging = engines(workload, "layernorm", "layernorm", "layernorm")
    for mine, theirs in zip(alone.gradients, beside.gradients, strict=True):
        theirs.copy_(mine)
    diverging.gradients[0].view(-1)[0] = value
    plain_engine.clip([alone])
    plain_engine.clip([beside, diverging])
    for mine, theirs in zip(alone.gradients, beside.gradients, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-6, atol=0.0)
    assert not all(gradient.isfinite().all() for gradient in diverging.gradients)
