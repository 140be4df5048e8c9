"""Heads of keys and values, where neither is made of the tokens that are looked at.

A key is W x + b. Queries meet it as q (W x + b) = (q W) x and what is alike for all tokens, which
no softmax sees; so queries can be turned to what keys are made of. And a weighted mean of values is
the value of that mean of tokens. Where tokens are many and queries few, as a question's are of an
image, that is less arithmetic, and no keys and values are kept for a backward pass. It holds
whatever is trained, as long as the layer stays an affine map.

Legend: B rows, Q queries, h heads of width d, D = h d, I inputs of the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainables.methods.packed import NOTHING, Own, SharedLinear, own
from trainables.parting import Parting
from trainables.rows import Rows


def affine(layer: nn.Module, member: int | None = None) -> bool:
    """Whether that is all it does, or does for a ``member`` of a pack, by weights that are here:
    ZeRO-3 brings them for a call alone."""
    if isinstance(layer, Parting) and member is not None:
        return affine(layer.own.get(member, layer.base), member)
    if isinstance(layer, SharedLinear) and member is not None:
        return not layer.owns.get(member, NOTHING).dropout and affine(layer.base)
    found = _of_one(layer)
    return found is not None and not found[1].dropout and not hasattr(found[0].weight, "ds_id")


def rows_of(*layers: nn.Module) -> Rows | None:
    """Where it stands whose rows they get, if trials of a pack differ in one of these layers."""
    return next((m.rows for m in layers if isinstance(m, Parting | SharedLinear)), None)


def turned(layer: nn.Module, q_BQhd: Tensor) -> tuple[Tensor, Tensor | None]:
    """Queries as they meet what an affine layer makes keys of, (B, h, Q, I); and what is alike for
    all tokens, (B, h, Q, 1), if it is trained."""
    if not isinstance(layer, Parting):
        return _shared(layer, len(q_BQhd)).turned(q_BQhd)
    found = _parted(layer, q_BQhd, turned)
    of_all = [torch.zeros_like(q[..., :1]) if alike is None else alike for q, alike in found]
    trained = any(alike is not None for _, alike in found)
    return torch.cat([q for q, _ in found]), torch.cat(of_all) if trained else None


def of_means(layer: nn.Module, mean_BhQI: Tensor) -> Tensor:
    """Shape (B, Q, D): what each head of an affine layer makes of its own mean of tokens."""
    if isinstance(layer, Parting):
        return torch.cat(_parted(layer, mean_BhQI, of_means))
    return _shared(layer, len(mean_BhQI)).of_means(mean_BhQI)


def _parted(layer: Parting, x: Tensor, run: Callable[[nn.Module, Tensor], Any]) -> list[Any]:
    """What each trial's own layer, or the base's, makes of its rows."""

    def one(member: int, part: Tensor) -> Any:
        return run(layer.own.get(member, layer.base), part)

    return layer.rows.each(layer.rows.parts(layer.own.get), one, x)


def _shared(layer: nn.Module, rows: int) -> SharedLinear:
    """That of a trial alone is one that nobody shares."""
    if isinstance(layer, SharedLinear):
        return layer
    found = _of_one(layer)
    assert found is not None, "an affine layer"
    return SharedLinear(found[0], {0: found[1]}, Rows(now=[(0, rows)]))


def _of_one(layer: nn.Module) -> tuple[nn.Linear, Own] | None:
    """A layer of one trial: a linear one, trained or not, and what is added to it."""
    if type(layer) is nn.Linear and not (layer._forward_hooks or layer._forward_pre_hooks):
        trained = layer.bias is not None and layer.bias.requires_grad
        return layer, Own(bias=layer.bias) if trained else NOTHING
    found = own(layer)
    if found is None:
        return None
    base: Any = layer
    return base.base_layer, found
