"""Feed-forward tuning: the two projections of every feed-forward block, without LayerNorms."""

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
    """Weights and biases of both projections."""
    return select.parameters(slot, ("ffn_in", "ffn_out"))
