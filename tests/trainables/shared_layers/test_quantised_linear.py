"""A layer in four bits computes as that of bitsandbytes, keeps nothing, and is shared as others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.quantised import needs_bitsandbytes
from trainables.shared_layers.quantised_linear import QuantisedLinear, count_values
from trainables.weight_sharing import share_weights

bitsandbytes = needs_bitsandbytes()


def theirs(linear: nn.Linear) -> nn.Module:
    """The layer of bitsandbytes with the weight of ``linear``."""
    made = bitsandbytes.nn.Linear4bit(
        *(linear.in_features, linear.out_features, linear.bias is not None),
        compute_dtype=linear.weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
    )
    weight: Any = linear.weight.detach().clone()
    made.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    made.bias = linear.bias
    on_cpu: nn.Module = made.to("cpu")
    return on_cpu


def run(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output of a layer, and the gradient of its input."""
    leaf = x.clone().requires_grad_()
    y = layer(leaf)
    (grad,) = torch.autograd.grad(y.float().square().sum(), leaf)
    return y.detach(), grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_as_the_layer_of_bitsandbytes(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 40, bias=bias).to(dtype).requires_grad_(False)
    x = torch.randn(3, 5, 96, dtype=dtype)
    ours, others, plain = (run(m, x) for m in (QuantisedLinear(linear), theirs(linear), linear))
    for found, expected in zip(ours, others, strict=True):
        assert found.dtype == dtype and torch.equal(found, expected)
    assert not torch.allclose(ours[0], plain[0], atol=1e-2)


def test_under_autocast_it_computes_in_bf16() -> None:
    linear = nn.Linear(64, 64).requires_grad_(False)
    layer, x = QuantisedLinear(linear), torch.randn(2, 64)
    plain = nn.Linear(64, 64).requires_grad_(False)
    plain.weight, plain.bias = layer.weight, linear.bias
    with torch.autocast("cpu", torch.bfloat16):
        pairs = list(zip(run(layer, x), run(plain, x), strict=True))
    for found, expected in pairs:
        assert found.dtype == expected.dtype and torch.allclose(found, expected, rtol=1e-2)


def test_a_trained_bias_has_its_gradient() -> None:
    layer, x = QuantisedLinear(nn.Linear(64, 8)), torch.randn(4, 64)
    assert layer.bias.requires_grad
    layer(x).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((8,), 4.0))


def test_no_weight_is_kept_for_the_backward_pass() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    layer = QuantisedLinear(nn.Linear(64, 64, bias=False))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(2, 64, requires_grad=True))
    assert kept == []


def test_it_takes_half_a_byte_and_a_64th_a_value_and_counts_as_its_values() -> None:
    layer = QuantisedLinear(nn.Linear(1024, 512, bias=False))
    held = [*layer.parameters(), *layer.buffers()]
    values = 1024 * 512
    assert count_values(layer) == values
    taken = sum(tensor.untyped_storage().nbytes() for tensor in held)
    assert taken == values / 2 + values / 64 + 4 * (values / 64 / 256 + 256 + 1)
    assert [*layer.state_dict()] == ["packed"], "no checkpoint has more"


def test_without_memory_it_has_the_same_shapes() -> None:
    with torch.device("meta"):
        empty = QuantisedLinear(nn.Linear(96, 40))
    real = QuantisedLinear(nn.Linear(96, 40))
    for name, tensor in {**dict(real.named_parameters()), **dict(real.named_buffers())}.items():
        there = getattr(empty, name)
        assert there.is_meta and (there.shape, there.dtype) == (tensor.shape, tensor.dtype)
    assert empty.weight.shape == (40, 96)


def test_a_copy_shares_its_memory_and_a_cast_changes_no_weight() -> None:
    layer = QuantisedLinear(nn.Linear(64, 64))
    copied = share_weights(layer)
    assert type(copied) is QuantisedLinear and not copied.packed.requires_grad
    for name in ("packed", "scales", "of_scales"):
        assert getattr(copied, name).data_ptr() == getattr(layer, name).data_ptr()
    before = layer.weight
    layer.to(torch.bfloat16)
    assert torch.equal(layer.weight, before) and layer.bias.dtype == torch.bfloat16
