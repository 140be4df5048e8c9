"""Attention tuning: the projections of self- and cross-attention, without their LayerNorms."""

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
    """Weights and biases of the query, key, value and output projections."""
    return select.parameters(slot, ("query", "key", "value", "qkv", "attention_output"))
