"""Weight absorption: attention without computing keys and values of the tokens it attends to.

A key is W x + b, and a query q meets it as q (W x + b) = (q W) x + q b. The last term is the same
for all tokens, so it does not change the softmax, and W can be absorbed into the query. Likewise, a
weighted mean of values is the value of the weighted mean of tokens. Multi-head latent attention
uses the same identity (DeepSeek-V2, arXiv 2405.04434).

Where tokens are many and queries few, as when a question attends to an image, that is less
arithmetic, and no keys and values are kept for a backward pass. It holds whatever is trained, as
long as the layer stays an affine map.

Legend: B rows, Q queries, h heads of width d, D = h d, I inputs of the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainables.shared_layers.quantised_linear import QuantisedLinear
from trainables.shared_layers.row_owners import RowOwners
from trainables.shared_layers.shared_linear import NOTHING, SharedLinear, TrialDelta, delta_of
from trainables.shared_layers.split_layer import SplitLayer


def is_affine(layer: nn.Module, member: int | None = None) -> bool:
    """Whether a layer is an affine map by weights that are in memory, for a ``member`` of a pack or
    for a trial alone. Under ZeRO-3 it is not: weights are fetched only for a call. A layer in four
    bits is not: its weight would be kept dequantised until the backward pass."""
    if isinstance(layer, SplitLayer) and member is not None:
        return is_affine(layer.replacements.get(member, layer.base), member)
    if isinstance(layer, SharedLinear) and member is not None:
        return not layer.deltas.get(member, NOTHING).dropout and is_affine(layer.base)
    found = _linear_and_delta(layer)
    return found is not None and not found[1].dropout and not hasattr(found[0].weight, "ds_id")


def row_owners_of(*layers: nn.Module) -> RowOwners | None:
    """Row owners of the first of the layers in which trials of a pack differ; None if there is no
    such layer."""
    return next((m.rows for m in layers if isinstance(m, SplitLayer | SharedLinear)), None)


def absorb_key(layer: nn.Module, q_BQhd: Tensor) -> tuple[Tensor, Tensor | None]:
    """Absorb the weight of an affine key layer into queries.

    Returns:
        the queries, of shape (B, h, Q, I), and the term that is the same for all tokens, of shape
        (B, h, Q, 1), or None if nothing in it is trained.
    """
    if not isinstance(layer, SplitLayer):
        return _as_shared_linear(layer, len(q_BQhd)).absorb_key(q_BQhd)
    found = _per_member(layer, q_BQhd, absorb_key)
    of_all = [torch.zeros_like(q[..., :1]) if alike is None else alike for q, alike in found]
    trained = any(alike is not None for _, alike in found)
    return torch.cat([q for q, _ in found]), torch.cat(of_all) if trained else None


def project_means(layer: nn.Module, mean_BhQI: Tensor) -> Tensor:
    """Output of an affine value layer, of shape (B, Q, D), for a mean of tokens of each head."""
    if isinstance(layer, SplitLayer):
        return torch.cat(_per_member(layer, mean_BhQI, project_means))
    return _as_shared_linear(layer, len(mean_BhQI)).project_means(mean_BhQI)


def _per_member(layer: SplitLayer, x: Tensor, run: Callable[[nn.Module, Tensor], Any]) -> list[Any]:
    """Results of ``run`` with each trial's own layer, or the base's, on its rows."""

    def one(member: int, part: Tensor) -> Any:
        return run(layer.replacements.get(member, layer.base), part)

    return layer.rows.map(layer.rows.runs(layer.replacements.get), one, x)


def _as_shared_linear(layer: nn.Module, rows: int) -> SharedLinear:
    """Return a layer as a ``SharedLinear``; a single trial's layer gets a single member."""
    if isinstance(layer, SharedLinear):
        return layer
    found = _linear_and_delta(layer)
    assert found is not None, "an affine layer"
    return SharedLinear(found[0], {0: found[1]}, RowOwners(owners=[(0, rows)]))


def _linear_and_delta(layer: nn.Module) -> tuple[nn.Linear, TrialDelta] | None:
    """Linear layer of a single trial and what the trial adds to it; None if the layer is of another
    kind."""
    if isinstance(getattr(layer, "base_layer", layer), QuantisedLinear):
        return None
    if type(layer) is nn.Linear and not (layer._forward_hooks or layer._forward_pre_hooks):
        trained = layer.bias is not None and layer.bias.requires_grad
        return layer, TrialDelta(bias=layer.bias) if trained else NOTHING
    found = delta_of(layer)
    if found is None:
        return None
    base: Any = layer
    return base.base_layer, found
