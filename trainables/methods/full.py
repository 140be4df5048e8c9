"""Full fine-tuning: trains every parameter of the slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``full``: there are none."""


def apply(slot: Slot, config: Config) -> list[str]:
    """Names of all parameters of the slot; tied parameters count once.

    Raises:
        BadInput: the slot has no parameters.
    """
    names = [name for name, _ in slot.module.named_parameters()]
    if not names:
        raise select.nothing(slot, "parameter")
    return names
