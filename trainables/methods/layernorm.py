"""LayerNorm tuning: gain and bias of every LayerNorm or RMSNorm.

(Zhao et al. 2023, arXiv 2312.11420)
"""

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
    """The parameters of all normalisation layers, those of embeddings and heads included."""
    return select.parameters(slot, ("norm",))
