"""Layers that run each trial's own module on the trial's rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainables.shared_layers.row_owners import RowOwners


class SplitLayer(nn.Module):
    """A layer for which some trials have modules of their own, each run on its trial's rows."""

    def __init__(
        self, base: nn.Module, replacements: Mapping[int, nn.Module], rows: RowOwners
    ) -> None:
        super().__init__()
        self.base, self.replacements, self.rows = base, dict(replacements), rows

    def __getattr__(self, name: str) -> Any:
        """Look up in the base what callers read from a layer, such as its weight's type."""
        return super().__getattr__(name) if name in self._modules else getattr(self.base, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the modules with the base's arguments and join their results. Each module gets its
        own rows of every tensor that has all rows."""
        first = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.ndim)
        total, each = len(first), self.rows.rows_each(first)
        outputs, start = [], 0
        for some in self.rows.runs(self.replacements.get):
            end = start + each * sum(count for _, count in some)
            part = slice(start, end)
            module = self.replacements.get(some[0][0], self.base)
            with self.rows.restrict(some):
                outputs.append(module(*_part(args, total, part), **_part(kwargs, total, part)))
            start = end
        if isinstance(outputs[0], tuple):  # an attention's output and attention weights
            return torch.cat([g[0] for g in outputs]), *[None] * (len(outputs[0]) - 1)
        return torch.cat(outputs)


class SharedNorm(SplitLayer):
    """A normalisation in which each trial may have a gain and bias of its own.

    If all trials have the same number of rows, all rows are normalised at once and then scaled by
    each trial's vectors.
    """

    def __init__(
        self, base: nn.Module, replacements: Mapping[int, nn.Module], rows: RowOwners
    ) -> None:
        super().__init__(base, replacements, rows)
        self.offset = adds_one(base)
        """Whether the gain is 1 + weight, as in Gemma."""
        self.plain = with_weight(base, not self.offset)
        """The base's normalisation without gain and bias."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` as the base does, with each trial's gain and bias."""
        if not self.rows.equal_counts:
            parted: Tensor = super().forward(x)
            return parted
        modules = [self.replacements.get(member, self.base) for member, _ in self.rows.owners]
        gain = self.rows.stack([module.get_parameter("weight") for module in modules], x)
        gain = gain + 1 if self.offset else gain
        bias = None
        if self.plain._parameters.get("bias") is not None:
            bias = self.rows.stack([module.get_parameter("bias") for module in modules], x)
        normed: Tensor = _Normed.apply(x, gain, bias, self.plain)  # type: ignore[no-untyped-call]  # torch
        return normed


def with_weight(norm: nn.Module, weight: float) -> nn.Module:
    """A normalisation like ``norm`` with a weight of ``weight`` throughout and without bias."""
    plain = copy.copy(norm)
    plain._parameters = {
        name: nn.Parameter(torch.full_like(p, weight * (name == "weight")), requires_grad=False)
        for name, p in norm._parameters.items()
        if p is not None
    }
    return plain


@torch.no_grad()
def adds_one(norm: nn.Module) -> bool:
    """Whether a normalisation multiplies by 1 + weight and not by its weight."""
    weight = norm.get_parameter("weight")
    output = with_weight(norm, 0.0)(torch.arange(1, 1 + weight.numel()).to(weight)[None])
    return bool(output.any())


class _Normed(torch.autograd.Function):
    """A normalisation without gain and bias, followed by those of M members.

    Gains and biases have the shape (M, 1, ..., D). No tensor as large as ``x`` but ``x`` itself is
    kept for the backward pass, as when a trial is alone; the normalised values are recomputed for
    the gradient of gains.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor | None, norm: nn.Module) -> Tensor:
        """Normalised ``x`` with gains and biases applied, in the shape of ``x``."""
        device = x.device.type
        ctx.norm, ctx.low = norm, torch.is_autocast_enabled(device)
        ctx.save_for_backward(x, gain)
        plain: Tensor = norm(x)
        apart = plain.reshape(len(gain), -1, *plain.shape[1:])
        y = apart * gain if bias is None else torch.addcmul(bias, apart, gain)
        return y.view(plain.shape).to(plain.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of each input."""
        x, gain = ctx.saved_tensors
        of_x, of_gain, of_bias, _ = ctx.needs_input_grad
        device = x.device.type
        with torch.enable_grad(), torch.autocast(device, torch.bfloat16, enabled=ctx.low):
            leaf = x.detach().requires_grad_(of_x)
            plain: Tensor = ctx.norm(leaf)
        apart = plain.detach().reshape(len(gain), -1, *plain.shape[1:])
        grad = grad.reshape(apart.shape).to(gain.dtype)
        within = [*range(1, grad.ndim - 1)]
        gradients: list[Tensor | None] = [None] * 4
        if of_gain:
            gradients[1] = (grad * apart).sum(within, keepdim=True)
        if of_bias:
            gradients[2] = grad.sum(within, keepdim=True)
        if of_x:
            of_plain = (grad * gain).view(plain.shape).to(plain.dtype)
            (gradients[0],) = torch.autograd.grad(plain, leaf, of_plain)
        return tuple(gradients)


def _part(value: Any, rows: int, part: slice) -> Any:
    """Rows ``part`` of every tensor that has all rows, also in tuples, lists and dicts. Other
    values are returned as they are."""
    if isinstance(value, Tensor):
        return value[part] if value.ndim and len(value) == rows else value
    if isinstance(value, tuple | list):
        return type(value)(_part(v, rows, part) for v in value)
    if isinstance(value, dict):
        return {name: _part(v, rows, part) for name, v in value.items()}
    return value
