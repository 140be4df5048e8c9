"""Prompt tuning: trains tokens before a stack's input, which all its layers then carry along.

(Lester et al. 2021, arXiv 2104.08691; in an image encoder, VPT-shallow: Jia et al. 2022, arXiv
2203.12119)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.errors import BadInput

if TYPE_CHECKING:
    from trainables.model_contract import Slot

CHANGES_AT_START = "a softmax gives every token some mass, and the papers' method does not gate it"
"""Why the method changes the output before training."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``prompt``.

    ``prefix`` and ``ptv2`` instead give each layer keys and values of its own.
    """

    tokens: int = 20
    """Number of trained tokens."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise BadInput(f"prompt tokens must be at least 1 but got {self.tokens}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Insert the tokens, which have ``tokens`` x width parameters."""
    from trainables.methods.common import soft_prompt

    return soft_prompt.add(slot, config.tokens)
