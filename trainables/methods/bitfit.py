"""BitFit: trains every bias and nothing else (Ben Zaken et al. 2022, arXiv 2106.10199)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``bitfit``: there are none."""


def apply(slot: Slot, config: Config) -> list[str]:
    """Names of the bias vectors of all layers, LayerNorms included.

    Raises:
        BadInput: the slot has no biases, as in Llama-like decoders.
    """
    biases = [n for n, _ in slot.module.named_parameters() if n.rpartition(".")[2] == "bias"]
    if not biases:
        raise select.nothing(slot, "bias")
    return biases
