"""P-tuning v2: trains keys and values of a few virtual tokens in every layer.

(Liu et al. 2022, arXiv 2110.07602)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.errors import BadInput
from trainables.methods import prefix

if TYPE_CHECKING:
    from trainables.model_contract import Slot

CHANGES_AT_START = prefix.CHANGES_AT_START
"""Why the method changes the output before training: for the same reason as ``prefix``."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``ptv2``, which is ``prefix`` without the MLP."""

    tokens: int = 10
    """Number of virtual tokens."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise BadInput(f"ptv2 tokens must be at least 1 but got {self.tokens}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Insert the tokens, which have 2 ``tokens`` x width parameters in each layer."""
    from trainables.methods.common import virtual_tokens

    return virtual_tokens.add(slot, tokens=config.tokens, projected=False)
