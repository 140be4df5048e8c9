"""A linear layer that several trials share: one product with the frozen weight serves all of them.
If the weight has four bits (``trainables.shared_layers.quantised_linear``), it is dequantised once
for all of them, too.

Each trial's method adds a part of its own to this product. The methods ``bitfit``, ``lora`` and
``ia3`` are supported and recognised by the types of their layers. The parts of neighbouring trials
are computed together: vectors are stacked, and LoRA's matrices form a batch of products in which
lower ranks are padded with zeros. Each trial has products of its own in the batch, so none of its
values, not even a NaN, can reach another's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from peft.tuners import ia3, lora
from torch import Tensor, nn

from trainables.shared_layers.quantised_linear import QuantisedLinear, multiply
from trainables.shared_layers.row_owners import RowOwners
from trainables.shared_layers.stack import Stack


@dataclass(frozen=True, kw_only=True)
class TrialDelta:
    """What a trial adds to a linear layer whose weight is the base's."""

    bias: Tensor | None = None
    """Trained bias, in place of the base's."""
    a_RI: Tensor | None = None
    """LoRA's matrix A, for rank R and I inputs of the layer."""
    b_OR: Tensor | None = None
    """LoRA's matrix B, for O outputs of the layer and rank R."""
    scaling: float = 1.0
    """LoRA's factor on the product of A and B."""
    dropout: float = 0.0
    """Probability of LoRA's dropout."""
    scale_I: Tensor | None = None
    """IA3's scales of a feed-forward layer's inputs."""
    scale_O: Tensor | None = None
    """IA3's scales of a layer's outputs."""


NOTHING = TrialDelta()


def delta_of(module: nn.Module) -> TrialDelta | None:
    """What ``module`` adds to the base's layer; None if a pack can't share the layer."""
    linear: Any = module.base_layer if isinstance(module, lora.Linear | ia3.Linear) else module
    quantised = type(linear) is QuantisedLinear
    if not quantised and (type(linear) is not nn.Linear or linear.weight.requires_grad):
        return None
    if any(m._forward_hooks or m._forward_pre_hooks for m in module.modules()):
        return None
    bias = linear.bias if linear.bias is not None and linear.bias.requires_grad else None
    if module is linear:
        return TrialDelta(bias=bias)
    assert isinstance(module, lora.Linear | ia3.Linear)
    if len(module.active_adapters) != 1 or module.merged or module.disable_adapters:
        return None
    (name,) = module.active_adapters
    if isinstance(module, ia3.Linear):
        scale = module.ia3_l[name]
        return TrialDelta(bias=bias, **{"scale_I" if module.is_feedforward else "scale_O": scale})
    if module.lora_variant or module.lora_bias[name] or module.lora_magnitude_vector:
        return None
    return TrialDelta(
        bias=bias,
        a_RI=module.lora_A[name].get_parameter("weight"),
        b_OR=module.lora_B[name].get_parameter("weight"),
        scaling=module.scaling[name],
        dropout=getattr(module.lora_dropout[name], "p", 0.0),
    )


class SharedLinear(nn.Module):
    """The base's linear layer with what each trial of a pack adds to it."""

    def __init__(self, base: nn.Linear, deltas: Mapping[int, TrialDelta], rows: RowOwners) -> None:
        super().__init__()
        self.base, self.deltas, self.rows = base, deltas, rows
        self._groups: dict[tuple[int, ...], _LowRank] = {}
        """Stacked LoRA matrices of neighbouring members, by the members."""

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (rows, ..., inputs) to (rows, ..., outputs)."""
        deltas = self._row_deltas
        if any(delta.scale_I is not None for delta in deltas):
            x = self.rows.multiply(x, [delta.scale_I for delta in deltas])
        biases = any(delta.bias is not None for delta in deltas)
        y = multiply(self.base, x, None if biases else self.base.bias)
        if biases:
            y = self.rows.add(y, self._biases)
        y = self._with_low_rank(x, y, _LowRank.__call__)
        if any(delta.scale_O is not None for delta in deltas):
            y = self.rows.multiply(y, [delta.scale_O for delta in deltas])
        return y

    def absorb_key(self, q_BQhd: Tensor) -> tuple[Tensor, Tensor | None]:
        """Absorb the weight into queries, as
        ``trainables.shared_layers.absorbed_projections.absorb_key`` does."""
        deltas, heads, alike_BhQ1 = self._row_deltas, q_BQhd.shape[2:], None
        if any(delta.bias is not None for delta in deltas):
            met_BQD = self.rows.multiply(q_BQhd.flatten(2), self._biases)
            alike_BhQ1 = met_BQD.unflatten(2, heads).sum(-1).transpose(1, 2)[..., None]
        if any(delta.scale_O is not None for delta in deltas):
            scaled_BQD = self.rows.multiply(q_BQhd.flatten(2), [delta.scale_O for delta in deltas])
            q_BQhd = scaled_BQD.unflatten(2, heads)
        weight_hdI = self.base.weight.view(*heads, -1)
        q_BhQI = torch.einsum("bqhd,hdi->bhqi", q_BQhd, weight_hdI)
        return self._with_low_rank(q_BQhd, q_BhQI, _LowRank.absorb_key), alike_BhQ1

    def project_means(self, mean_BhQI: Tensor) -> Tensor:
        """Apply the layer to means of tokens, as
        ``trainables.shared_layers.absorbed_projections.project_means`` does."""
        deltas, heads = self._row_deltas, mean_BhQI.shape[1]
        weight_hdI = self.base.weight.unflatten(0, (heads, -1))
        y_BQhd = torch.einsum("bhqi,hdi->bqhd", mean_BhQI, weight_hdI)
        y_BQD = self._with_low_rank(mean_BhQI, y_BQhd, _LowRank.project_means).flatten(2)
        if any(delta.bias is not None for delta in deltas):
            y_BQD = self.rows.add(y_BQD, self._biases)
        elif self.base.bias is not None:
            y_BQD = y_BQD + self.base.bias
        if any(delta.scale_O is not None for delta in deltas):
            y_BQD = self.rows.multiply(y_BQD, [delta.scale_O for delta in deltas])
        return y_BQD

    @property
    def _row_deltas(self) -> list[TrialDelta]:
        return [self.deltas.get(member, NOTHING) for member, _ in self.rows.owners]

    @property
    def _biases(self) -> list[Tensor]:
        return [self.base.bias if delta.bias is None else delta.bias for delta in self._row_deltas]

    def _with_low_rank(
        self, x: Tensor, y: Tensor, add: Callable[[_LowRank, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Add to ``y`` what LoRA computes from ``x`` by ``add``, for one member or for several
        neighbours at once."""
        if all(delta.a_RI is None for delta in self._row_deltas):
            return y
        runs, even = list[tuple[str, list[tuple[int, int]]]](), self.rows.equal_counts
        for kind, some in groupby(self.rows.owners, key=lambda row: self._kind(row[0])):
            run, together = [*some], kind == "none" or (kind == "stacked" and even)
            runs += [(kind, run)] if together else [(kind, [row]) for row in run]
        each = self.rows.rows_each(x)
        sizes = [each * sum(count for _, count in run) for _, run in runs]
        parts = []
        # Split in one operation, so that gradients are joined in one operation too.
        for (kind, run), given, made in zip(runs, x.split(sizes), y.split(sizes), strict=True):
            if kind == "none":
                parts.append(made)
            elif kind == "dropout":
                parts.append(self._with_dropout(given, made, run[0][0]))
            else:
                parts.append(add(self._group(tuple(member for member, _ in run)), given, made))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _kind(self, member: int) -> str:
        """Kind of what LoRA adds for a member: ``none``, ``dropout`` or ``stacked``.
        Only without dropout can neighbours be computed together."""
        delta = self.deltas.get(member, NOTHING)
        return "none" if delta.a_RI is None else "dropout" if delta.dropout else "stacked"

    def _group(self, members: tuple[int, ...]) -> _LowRank:
        if members not in self._groups:
            self._groups[members] = _LowRank([self.deltas[member] for member in members])
        return self._groups[members]

    def _with_dropout(self, x: Tensor, y: Tensor, member: int) -> Tensor:
        delta = self.deltas[member]
        assert delta.a_RI is not None and delta.b_OR is not None
        given = self.rows.dropout(x.to(delta.a_RI.dtype), delta.dropout, member)
        low_R = nn.functional.linear(given, delta.a_RI)
        return (y + nn.functional.linear(low_R, delta.b_OR) * delta.scaling).to(y.dtype)

    def __getattr__(self, name: str) -> Any:
        """Look up in the base what callers read from a layer, such as its weight's type."""
        return super().__getattr__(name) if name == "base" else getattr(self.base, name)


class _LowRank:
    """LoRA's part of a layer's output for M trials that have the same number of rows.

    Legend: N rows times tokens of a trial, I inputs, O outputs, R the highest of the ranks; for
    shapes with heads see ``trainables.shared_layers.absorbed_projections``.
    """

    def __init__(self, deltas: Sequence[TrialDelta]) -> None:
        a_RI = [delta.a_RI for delta in deltas if delta.a_RI is not None]
        b_OR = [delta.b_OR for delta in deltas if delta.b_OR is not None]
        self.a, self.b = Stack(a_RI, transposed=False), Stack(b_OR, transposed=True)
        scales = [delta.scaling for delta in deltas]
        alike = len({*scales}) == 1
        self.scaling = scales[0] if alike else a_RI[0].new_tensor(scales)[:, None, None]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` plus what LoRA adds; ``x`` has shape (rows, ..., I) and ``y`` (rows, ..., O)."""
        a_MRI, b_MRO = self._matrices()
        x_MNI = x.reshape(len(a_MRI), -1, x.shape[-1])
        y_MNO = y.reshape(len(a_MRI), -1, y.shape[-1])
        if not torch.is_autocast_enabled(x.device.type):
            x_MNI, y_MNO = x_MNI.to(a_MRI.dtype), y_MNO.to(a_MRI.dtype)
        low_MNR = torch.bmm(x_MNI, a_MRI.transpose(1, 2))
        return torch.baddbmm(y_MNO, low_MNR, b_MRO).view(y.shape).to(y.dtype)

    def absorb_key(self, q_BQhd: Tensor, q_BhQI: Tensor) -> Tensor:
        """``q_BhQI``, absorbed queries, plus what LoRA adds to them."""
        a_MRI, b_MRO = self._matrices()
        members, (heads, width) = len(a_MRI), q_BQhd.shape[2:]
        low_MnhQR = torch.einsum(
            "mnqhd,mrhd->mnhqr",
            q_BQhd.unflatten(0, (members, -1)),
            b_MRO.unflatten(2, (heads, width)),
        )
        low_MNR = low_MnhQR.reshape(members, -1, low_MnhQR.shape[-1])
        q_MNI = q_BhQI.reshape(members, -1, q_BhQI.shape[-1])
        return torch.baddbmm(q_MNI, low_MNR, a_MRI).view(q_BhQI.shape).to(q_BhQI.dtype)

    def project_means(self, mean_BhQI: Tensor, y_BQhd: Tensor) -> Tensor:
        """``y_BQhd``, the layer's output for means of tokens, plus what LoRA adds to it."""
        a_MRI, b_MRO = self._matrices()
        members, (heads, width) = len(a_MRI), y_BQhd.shape[2:]
        mean_MNI = mean_BhQI.reshape(members, -1, mean_BhQI.shape[-1])
        low_MNR = torch.bmm(mean_MNI, a_MRI.transpose(1, 2))
        added_MnQhd = torch.einsum(
            "mnhqr,mrhd->mnqhd",
            low_MNR.view(members, -1, *mean_BhQI.shape[1:3], low_MNR.shape[-1]),
            b_MRO.unflatten(2, (heads, width)),
        )
        return (y_BQhd + added_MnQhd.flatten(0, 1)).to(y_BQhd.dtype)

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """Stacked matrices of all trials: A, multiplied by the scaling, and B."""
        return self.a() * self.scaling, self.b()
