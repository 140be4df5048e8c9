"""Every parameter is trained."""

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
    """All parameters of the slot; those that it ties are one.

    Raises:
        BadInput: the slot has none.
    """
    names = [name for name, _ in slot.module.named_parameters()]
    if not names:
        raise select.nothing(slot, "parameter")
    return names
