"""A linear layer whose frozen weight has four bits a value: NF4, as in QLoRA.

(Dettmers et al. 2023, arXiv 2305.14314)

Blocks of 64 values share a scale. Scales have eight bits, and blocks of 256 of them share a scale
themselves (double quantisation), so that a weight takes 0.5 + 1/64 bytes. Format and kernels are
those of bitsandbytes, whose own layers compute the same.

The weight is dequantised for every product, and once more for the gradient of the input, so that it
is not kept in between. The layer is an ``nn.Linear``: methods wrap it, and trials of a pack share
it, as they do any other. (bitsandbytes' ``Linear4bit`` has a parameter of a class of its own, which
weight-sharing copies and fake tensors would lose.)
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainables.errors import BadInput

BLOCK = 64
"""Number of values that share a scale."""
SCALES = 256
"""Number of scales that share a scale. It is also the number of values that a scale may have."""


class QuantisedLinear(nn.Linear):
    """A linear layer with a frozen weight in four bits."""

    scales: Tensor
    """Scale of each block, of shape (O I / 64,), in eight bits."""
    of_scales: Tensor
    """What ``scales`` are made of (``_quantised``), as integers."""

    def __init__(self, linear: nn.Linear, device: torch.device | None = None) -> None:
        """Quantise the weight of ``linear``, on ``device`` if one is given.

        The weight may be on the meta device; then so is the new one.
        """
        nn.Module.__init__(self)  # that of nn.Linear would make a weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = linear.weight.dtype
        """Type that the weight had, and has when it is dequantised outside of autocast."""
        packed, scales, of_scales = _quantised(linear.weight.detach(), device)
        self.packed = nn.Parameter(packed, requires_grad=False)
        """Two values a byte, of shape (O I / 2, 1)."""
        self.bias = linear.bias
        # Not in ``state_dict``, so that no checkpoint of a trial has them.
        self.register_buffer("scales", scales, persistent=False)
        # A network that is moved to a type keeps integers.
        self.register_buffer("of_scales", of_scales.view(torch.int32), persistent=False)

    @property
    def weight(self) -> nn.Parameter:  # type: ignore[override]  # that of nn.Linear can be set
        """The weight, dequantised anew whenever it is looked up; shape (O, I)."""
        return nn.Parameter(self.dequantised(self.dtype), requires_grad=False)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The weight as a new tensor of shape (O, I)."""
        operations: Any = torch.ops.bitsandbytes
        found = self.of_scales.view(torch.float32)
        code, scales, mean = found[:SCALES], found[SCALES:-1], found[-1]
        scales = operations.dequantize_blockwise(self.scales, scales, code, SCALES, torch.float32)
        shape = [self.out_features, self.in_features]
        weight_OI: Tensor = operations.dequantize_4bit(
            self.packed, scales.add_(mean), BLOCK, "nf4", shape, dtype
        )
        return weight_OI

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as in nn.Linear
        """Map shape (..., I) to (..., O)."""
        return self.product(input, self.bias)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Product of ``x`` with the weight, plus ``bias``."""
        device, dtype = x.device.type, self.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        y: Tensor = _Product.apply(x, bias, self, dtype)  # type: ignore[no-untyped-call]  # torch
        return y


@cache
def check_kernels(device: torch.device) -> None:
    """Check that bitsandbytes computes on a device. Its wheel has a library for each of some
    versions of CUDA, and there are devices for which it has none.

    Raises:
        BadInput: it does not.
    """
    import bitsandbytes

    zeros = torch.zeros(BLOCK, device=device)
    try:
        bitsandbytes.functional.quantize_4bit(zeros, blocksize=BLOCK, quant_type="nf4")
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what it raises without a library, and torch without a kernel
        why = str(error).strip().splitlines()[0].strip("\N{POLICE CARS REVOLVING LIGHT} .")
        raise BadInput(
            f"bitsandbytes {bitsandbytes.__version__} does not compute on {device.type} here "
            f"({why}); install one that does (python -m bitsandbytes says what it finds), or do "
            "without --base-bits 4 and the optimizer adamw_8bit"
        ) from None


def _quantised(weight_OI: Tensor, device: torch.device | None) -> tuple[Tensor, Tensor, Tensor]:
    """The bytes of a weight, its scales, and what these are made of: their possible values, the
    scales of their blocks, and their mean, one after the other."""
    import bitsandbytes

    if weight_OI.is_meta:  # bitsandbytes would remember possible values without memory
        blocks = -(-weight_OI.numel() // BLOCK)
        sizes = (-(-weight_OI.numel() // 2), 1), (blocks,)
        packed, scales = (weight_OI.new_empty(size, dtype=torch.uint8) for size in sizes)
        of_scales = SCALES + -(-blocks // SCALES) + 1
        return packed, scales, weight_OI.new_empty(of_scales, dtype=torch.float32)
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight_OI if device is None else weight_OI.to(device),
        blocksize=BLOCK,
        compress_statistics=True,
        quant_type="nf4",
    )
    second = state.state2
    return packed, state.absmax, torch.cat([second.code, second.absmax, state.offset.view(1)])


class _Product(torch.autograd.Function):
    """``nn.functional.linear`` with the weight of a ``QuantisedLinear``, which is not kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, layer: QuantisedLinear, dtype: torch.dtype
    ) -> Tensor:
        """Output of the layer."""
        ctx.layer, ctx.dtype = layer, dtype
        return nn.functional.linear(x, layer.dequantised(dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input and bias."""
        of_x, of_bias, *_ = ctx.needs_input_grad
        return (
            grad @ ctx.layer.dequantised(ctx.dtype) if of_x else None,
            grad.flatten(0, -2).sum(0) if of_bias else None,
            None,
            None,
        )


def multiply(layer: nn.Linear, x: Tensor, bias: Tensor | None) -> Tensor:
    """Product of ``x`` with the weight of a linear layer, in four bits or not, plus ``bias``."""
    if isinstance(layer, QuantisedLinear):
        return layer.product(x, bias)
    return nn.functional.linear(x, layer.weight, bias)


def count_values(module: nn.Module) -> int:
    """Number of values of a module's parameters; of bytes that hold two values each, both count."""
    packed = [m for m in module.modules() if isinstance(m, QuantisedLinear)]
    unpacked = sum(m.in_features * m.out_features - m.packed.numel() for m in packed)
    return sum(p.numel() for p in module.parameters()) + unpacked
