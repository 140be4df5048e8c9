"""Nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.models.contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """No settings."""


def apply(slot: Slot, config: Config) -> list[str]:
    """No parameter."""
    return []
