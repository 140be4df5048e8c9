"""Prefix tuning: keys and values of a few virtual tokens, made by an MLP that is trained too.

(Li and Liang 2021, arXiv 2101.00190)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.errors import BadInput
from trainables.methods import virtual
from trainables.methods.virtual import CHANGES_AT_START as CHANGES_AT_START

if TYPE_CHECKING:
    from trainables.models.contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many. ``ptv2`` is the same without the MLP."""

    tokens: int = 10

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise BadInput(f"prefix tokens must be at least 1 but got {self.tokens}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Put the tokens in, and the MLP: with width W, W to W to 2 W for each layer."""
    return virtual.add(slot, tokens=config.tokens, projected=True)
