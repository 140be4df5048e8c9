"""LayerNorm tuning: trains gain and bias of every LayerNorm or RMSNorm.

(Zhao et al. 2023, arXiv 2312.11420)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``layernorm``: there are none."""


def apply(slot: Slot, config: Config) -> list[str]:
    """Names of the parameters of all normalisation layers, also in embeddings and heads."""
    return select.parameters(slot, ("norm",))
