"""No tuning: every parameter of the slot stays frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``frozen``: there are none."""


def apply(slot: Slot, config: Config) -> list[str]:
    """Train no parameter: the list of names is empty."""
    return []
