"""DoRA: LoRA gives the direction of each weight, and a trained vector its magnitude.

(Liu et al. 2024, arXiv 2402.09353)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.methods import lora

if TYPE_CHECKING:
    from trainables.models.contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config(lora.Config):
    """The settings of ``lora``. A row of the weight is m (W + update) / |W + update|."""


def apply(slot: Slot, config: Config) -> dict[str, float]:
    """Put the adapters in; m is |W| at first, so the output is unchanged."""
    return lora.add(slot, config, decomposed=True)
