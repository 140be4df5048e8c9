"""P-tuning v2: every layer has trained keys and values of its own for a few virtual tokens.

(Liu et al. 2022, arXiv 2110.07602)
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
    """How many."""

    tokens: int = 10

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise BadInput(f"ptv2 tokens must be at least 1 but got {self.tokens}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Put the tokens in: 2 ``tokens`` x width parameters a layer."""
    return virtual.add(slot, tokens=config.tokens, projected=False)
