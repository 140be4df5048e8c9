"""DoRA: LoRA trains the direction of each weight, and a vector its magnitude.

(Liu et al. 2024, arXiv 2402.09353)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.methods import lora

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config(lora.Config):
    """Settings of ``dora``, the same as those of ``lora``.

    A row of the weight becomes m (W + update) / |W + update|.
    """


def apply(slot: Slot, config: Config) -> dict[str, float]:
    """Insert the adapters. m starts at |W|, so the output is unchanged at first.

    Returns:
        name of each trained parameter -> its factor on the trial's learning rate.
    """
    return lora.add(slot, config, decomposed=True)
