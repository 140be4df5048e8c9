"""Attention tuning: trains the projections of self- and cross-attention, but no LayerNorms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot

TRAINS_WEIGHTS = True
"""Weight matrices of the base are trained, so that a base in four bits can't have the method."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``attention``: there are none."""


def apply(slot: Slot, config: Config) -> list[str]:
    """Names of the weights and biases of query, key, value and output projections."""
    return select.parameters(slot, ("query", "key", "value", "qkv", "attention_output"))
