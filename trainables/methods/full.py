"""Full fine-tuning: trains every parameter of the slot."""

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
