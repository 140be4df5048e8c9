"""Where trials differ, and a layer that lets their rows part there."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainables.methods import virtual
from trainables.models.contract import is_norm
from trainables.rows import Rows

# --- 1. What a trial has of its own ---------------------------------------------------------------


class Unpackable(Exception):
    """A trial differs from the base in a way that a pack does not know; says where."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Where a trial's network is not the base's."""

    modules: Mapping[str, nn.Module]
    """Path -> the trial's own module there. All else is the base's."""
    virtual_tokens: Mapping[str, virtual.VirtualTokens]
    """Path of a slot's module -> virtual tokens to renew before it runs."""


def differences(base: nn.Module, network: nn.Module) -> Differences:
    """Where ``network``, a fork of ``base`` with a recipe in it, differs.

    Raises:
        Unpackable: in something else than layers whose rows do not depend on one another.
    """
    modules: dict[str, nn.Module] = {}
    tokens: dict[str, virtual.VirtualTokens] = {}
    aliases: list[tuple[str, nn.Parameter]] = []

    def walk(path: str, theirs: nn.Module, own: nn.Module) -> None:
        if isinstance(theirs, nn.Linear | nn.Conv2d) or is_norm(theirs):
            if _differs(theirs, own):
                modules[path] = own
            return
        if type(own) is not type(theirs) or "forward" in vars(own):
            raise Unpackable(f"{path} is a {type(own).__name__}")
        hooks = _added_hooks(theirs, own)
        if hooks and not all(virtual.is_hook(hook) for hook in hooks):
            raise Unpackable(f"{path} has a hook")
        added = own._modules.get("virtual_tokens")
        if isinstance(added, virtual.VirtualTokens):
            tokens[path] = added
        elif hooks:
            modules[path] = own
            return
        for parameter in own.parameters(recurse=False):
            if parameter.requires_grad:
                aliases.append((path, parameter))
        for name, child in own.named_children():
            if name == "virtual_tokens" and path in tokens:
                continue
            if name not in theirs._modules:
                raise Unpackable(f"{path} has a {type(child).__name__}")
            walk(f"{path}.{name}" if path else name, theirs.get_submodule(name), child)

    walk("", base, network)
    for path, parameter in aliases:
        # Tied to a parameter of a layer below, which is the one that uses it.
        below = (m for p, m in modules.items() if p.startswith(f"{path}."))
        if not any(parameter is other for module in below for other in module.parameters()):
            raise Unpackable(f"{path} trains a parameter of its own")
    return Differences(modules=modules, virtual_tokens=tokens)


def _differs(theirs: nn.Module, own: nn.Module) -> bool:
    trains = any(parameter.requires_grad for parameter in own.parameters())
    return trains or type(own) is not type(theirs) or bool(_added_hooks(theirs, own))


def _added_hooks(theirs: nn.Module, own: nn.Module) -> list[Any]:
    """Those that the base's module does not have; a method's come after them."""
    kinds = ("_forward_pre_hooks", "_forward_hooks")
    return [
        hook
        for kind in kinds
        for hook in list(getattr(own, kind).values())[len(getattr(theirs, kind)) :]
    ]


# --- 2. Where rows part ---------------------------------------------------------------------------


class Parting(nn.Module):
    """A layer that some trials have modules of their own for: each gets its trial's rows."""

    def __init__(self, base: nn.Module, own: Mapping[int, nn.Module], rows: Rows) -> None:
        super().__init__()
        self.base, self.own, self.rows = base, dict(own), rows

    def __getattr__(self, name: str) -> Any:
        """What is looked up on the layer beside calling it, as its weight's type."""
        return super().__getattr__(name) if name in self._modules else getattr(self.base, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the base's, of which tensors with all rows are given to each trial in part."""
        total = sum(count for _, count in self.rows.now)
        given, start = [], 0
        for some in self.rows.parts(self.own.get):
            end = start + sum(count for _, count in some)
            part = slice(start, end)
            own = self.own.get(some[0][0], self.base)
            with self.rows.only(some):
                given.append(own(*_part(args, total, part), **_part(kwargs, total, part)))
            start = end
        if isinstance(given[0], tuple):  # of an attention: what it gives, and its weights
            return torch.cat([g[0] for g in given]), *[None] * (len(given[0]) - 1)
        return torch.cat(given)


class SharedNorm(Parting):
    """A normalisation whose gain and bias trials have of their own: once for all rows, and then by
    each trial's vectors; where they have as many rows."""

    def __init__(self, base: nn.Module, own: Mapping[int, nn.Module], rows: Rows) -> None:
        super().__init__(base, own, rows)
        self.plain = copy.copy(base)
        """The base's without gain and bias."""
        self.plain._parameters = {
            name: nn.Parameter(torch.full_like(p, name == "weight"), requires_grad=False)
            for name, p in base._parameters.items()
            if p is not None
        }

    def forward(self, x: Tensor) -> Tensor:
        """As the base's."""
        if not self.rows.even:
            parted: Tensor = super().forward(x)
            return parted
        modules = [self.own.get(member, self.base) for member, _ in self.rows.now]
        gain = self.rows.stacked([module.get_parameter("weight") for module in modules], x)
        bias = None
        if self.plain._parameters.get("bias") is not None:
            bias = self.rows.stacked([module.get_parameter("bias") for module in modules], x)
        normed: Tensor = _Normed.apply(x, gain, bias, self.plain)  # type: ignore[no-untyped-call]  # torch
        return normed


class _Normed(torch.autograd.Function):
    """A normalisation without gain and bias, and then those of M members, of shape (M, 1, ..., D).

    Of what is as large as ``x`` it keeps ``x``, as a trial alone does, and computes the rest anew
    for the gradient of gains.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor | None, norm: nn.Module) -> Tensor:
        """As ``x``."""
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
        """Of each input."""
        x, gain = ctx.saved_tensors
        of_x, of_gain, of_bias, _ = ctx.needs_input_grad
        device = x.device.type
        with torch.enable_grad(), torch.autocast(device, torch.bfloat16, enabled=ctx.low):
            given = x.detach().requires_grad_(of_x)
            plain: Tensor = ctx.norm(given)
        apart = plain.detach().reshape(len(gain), -1, *plain.shape[1:])
        grad = grad.reshape(apart.shape).to(gain.dtype)
        within = [*range(1, grad.ndim - 1)]
        found: list[Tensor | None] = [None] * 4
        if of_gain:
            found[1] = (grad * apart).sum(within, keepdim=True)
        if of_bias:
            found[2] = grad.sum(within, keepdim=True)
        if of_x:
            of_plain = (grad * gain).view(plain.shape).to(plain.dtype)
            (found[0],) = torch.autograd.grad(plain, given, of_plain)
        return tuple(found)


def _part(value: Any, rows: int, part: slice) -> Any:
    """A part of every tensor that has all rows, in whatever it lies."""
    if isinstance(value, Tensor):
        return value[part] if value.ndim and len(value) == rows else value
    if isinstance(value, tuple | list):
        return type(value)(_part(v, rows, part) for v in value)
    if isinstance(value, dict):
        return {name: _part(v, rows, part) for name, v in value.items()}
    return value
