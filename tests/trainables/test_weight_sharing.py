"""A weight-sharing copy shares the base's memory and nothing else; a trial owns what it trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.model_contract import Model
from trainables.weight_sharing import own_trained_parameters, share_weights
from trainables.workload import Workload


class Tied(nn.Module):
    """A network of an embedding, tied to the output layer, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.embedding.weight
        self.register_buffer("positions", torch.arange(5))


def test_a_fork_takes_no_memory(model: Model) -> None:
    forked = share_weights(model.network)
    pairs = list(zip(model.network.parameters(), forked.parameters(), strict=True))
    assert all(a is not b and a.data_ptr() == b.data_ptr() for a, b in pairs)
    buffers = list(zip(model.network.buffers(), forked.buffers(), strict=True))
    assert all(a is b for a, b in buffers)
    assert [n for n, _ in forked.named_parameters()] == [
        n for n, _ in model.network.named_parameters()
    ]


def test_a_fork_answers_as_its_base(workload: Workload) -> None:
    model, batch = workload.model, workload.batch("validation", range(4))
    forked = share_weights(model.network)
    assert torch.equal(model.losses(forked, batch), model.losses(model.network, batch))
    assert model.answers(forked, batch) == model.answers(model.network, batch)


def test_nothing_done_to_a_fork_reaches_the_base() -> None:
    base = Tied().requires_grad_(False)
    forked = share_weights(base)
    forked.train().requires_grad_(True)
    assert isinstance(forked, Tied)
    forked.head = nn.Linear(3, 7)
    forked.norm.weight.data = torch.empty(0)  # as ZeRO-3 does
    forked.norm.register_forward_hook(lambda *_: None)
    base.eval()
    assert forked.training
    assert not any(p.requires_grad for p in base.parameters())
    assert base.head.out_features == 5
    assert torch.equal(base.norm.weight, torch.ones(3))
    assert not base.norm._forward_hooks


def test_a_fork_requires_no_gradient_even_if_its_base_does() -> None:
    assert not any(p.requires_grad for p in share_weights(Tied()).parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_owned_is_a_copy_in_fp32(dtype: torch.dtype) -> None:
    base = Tied().to(dtype)
    forked = share_weights(base)
    owned = own_trained_parameters(forked, ["norm.weight"])
    (parameter,) = owned.values()
    assert parameter is forked.get_parameter("norm.weight")
    assert (parameter.dtype, parameter.requires_grad) == (torch.float32, True)
    assert parameter.data_ptr() != base.norm.weight.data_ptr()
    assert torch.equal(parameter, base.norm.weight.float())
    with torch.no_grad():
        parameter.add_(1)
    assert torch.equal(base.norm.weight, torch.ones(3, dtype=dtype))
    bias = forked.get_parameter("norm.bias")
    assert (bias.dtype, bias.requires_grad) == (torch.float32, False), "LayerNorm takes no mixture"
    assert base.norm.bias.dtype == dtype


def test_tied_parameters_stay_tied() -> None:
    base = Tied()
    forked = share_weights(base)
    assert isinstance(forked, Tied)
    assert forked.head.weight is forked.embedding.weight
    owned = own_trained_parameters(forked, [name for name, _ in forked.named_parameters()])
    assert list(owned) == ["embedding.weight", "norm.weight", "norm.bias", "head.bias"]
    assert forked.head.weight is forked.embedding.weight is owned["embedding.weight"]
    assert forked.head.weight is not base.head.weight
