"""BitFit: every bias is trained, nothing else (Ben Zaken et al. 2022, arXiv 2106.10199)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.methods import select

if TYPE_CHECKING:
    from trainables.models.contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """No settings."""


def apply(slot: Slot, config: Config) -> list[str]:
    """The bias vectors of all layers, LayerNorms included.

    Raises:
        BadInput: the slot has none, as in Llama-like decoders.
    """
    biases = [n for n, _ in slot.module.named_parameters() if n.rpartition(".")[2] == "bias"]
    if not biases:
        raise select.nothing(slot, "bias")
    return biases
