"""Prefix tuning: trains keys and values of a few virtual tokens, and the MLP that makes them.

(Li and Liang 2021, arXiv 2101.00190)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.errors import BadInput

if TYPE_CHECKING:
    from trainables.model_contract import Slot

CHANGES_AT_START = (
    "a softmax gives every virtual token some mass, and the papers' method has nothing to gate it"
)
"""Why the method changes the output before training. A gate that starts at zero (as in
LLaMA-Adapter) would be another method, with other parameter counts."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``prefix``, which is ``ptv2`` with an MLP."""

    tokens: int = 10
    """Number of virtual tokens."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise BadInput(f"prefix tokens must be at least 1 but got {self.tokens}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Insert the tokens and the MLP, which maps width W to W and then to 2 W for each layer."""
    from trainables.methods.common import virtual_tokens

    return virtual_tokens.add(slot, tokens=config.tokens, projected=True)
