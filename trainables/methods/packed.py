"""A linear layer that several trials share: one product with the frozen weight for all of them, and
for each what its own method adds.

For ``bitfit``, ``lora`` and ``ia3``, by the types of their layers. Each trial's rows are computed
by the same operations, on the same shapes, as in its own network, so nothing of a trial, not even
a value that is no number, can reach another's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners import ia3, lora
from torch import Tensor, nn

from trainables.rows import Rows


@dataclass(frozen=True, kw_only=True)
class Own:
    """What a trial has of its own at a linear layer whose weight is the base's."""

    bias: Tensor | None = None
    a_RI: Tensor | None = None
    """LoRA's A and B: rank, inputs and outputs of the layer."""
    b_OR: Tensor | None = None
    scaling: float = 1.0
    dropout: float = 0.0
    scale_I: Tensor | None = None
    """IA3's, of a feed-forward layer's inputs."""
    scale_O: Tensor | None = None
    """IA3's, of what a layer gives."""


NOTHING = Own()


def own(module: nn.Module) -> Own | None:
    """What ``module`` adds to the base's layer; None if it is more than a pack can share."""
    linear = module.base_layer if isinstance(module, lora.Linear | ia3.Linear) else module
    if type(linear) is not nn.Linear or linear.weight.requires_grad:
        return None
    if any(m._forward_hooks or m._forward_pre_hooks for m in module.modules()):
        return None
    bias = linear.bias if linear.bias is not None and linear.bias.requires_grad else None
    if module is linear:
        return Own(bias=bias)
    assert isinstance(module, lora.Linear | ia3.Linear)
    if len(module.active_adapters) != 1 or module.merged or module.disable_adapters:
        return None
    (name,) = module.active_adapters
    if isinstance(module, ia3.Linear):
        scale = module.ia3_l[name]
        return Own(bias=bias, **{"scale_I" if module.is_feedforward else "scale_O": scale})
    if module.lora_variant or module.lora_bias[name] or module.lora_magnitude_vector:
        return None
    return Own(
        bias=bias,
        a_RI=module.lora_A[name].get_parameter("weight"),
        b_OR=module.lora_B[name].get_parameter("weight"),
        scaling=module.scaling[name],
        dropout=getattr(module.lora_dropout[name], "p", 0.0),
    )


class SharedLinear(nn.Module):
    """The base's linear layer with what each trial of a pack adds to it."""

    def __init__(self, base: nn.Linear, owns: Mapping[int, Own], rows: Rows) -> None:
        super().__init__()
        self.base, self.owns, self.rows = base, owns, rows

    def forward(self, x: Tensor) -> Tensor:
        """Shapes (rows, ..., inputs) and (rows, ..., outputs)."""
        counts = [count for _, count in self.rows.now]
        owns = [self.owns.get(member, NOTHING) for member, _ in self.rows.now]
        biases = any(own.bias is not None for own in owns)
        xs: Sequence[Tensor] = torch.split(x, counts)
        if any(own.scale_I is not None for own in owns):
            xs = tuple(
                x if own.scale_I is None else (x * own.scale_I.flatten()).to(x.dtype)
                for x, own in zip(xs, owns, strict=True)
            )
            x = torch.cat(xs)
        y = nn.functional.linear(x, self.base.weight, None if biases else self.base.bias)
        ys = list(torch.split(y, counts))
        for place, own in enumerate(owns):
            if biases:
                bias = self.base.bias if own.bias is None else own.bias
                ys[place] = (ys[place] + bias).to(y.dtype)
            if own.a_RI is not None and own.b_OR is not None:
                given = xs[place].to(own.a_RI.dtype)
                if own.dropout:
                    given = self.rows.dropped(given, own.dropout, self.rows.now[place][0])
                low_R = nn.functional.linear(given, own.a_RI)
                added = nn.functional.linear(low_R, own.b_OR) * own.scaling
                ys[place] = (ys[place] + added).to(y.dtype)
            if own.scale_O is not None:
                ys[place] = (ys[place] * own.scale_O.flatten()).to(y.dtype)
        return torch.cat(ys)

    def __getattr__(self, name: str) -> Any:
        """What is looked up on the layer beside calling it, as its weight's type."""
        return super().__getattr__(name) if name == "base" else getattr(self.base, name)
