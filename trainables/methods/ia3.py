"""IA3: trains vectors that rescale keys, values and inner feed-forward activations.

(Liu et al. 2022, arXiv 2205.05638)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Roles of the layers to rescale: the outputs of ``targets``, the inputs of ``feedforward``."""

    targets: tuple[str, ...] = ("key", "value", "qkv")
    feedforward: tuple[str, ...] = ("ffn_out",)


def apply(slot: Slot, config: Config) -> list[str]:
    """Insert the vectors. They start at one, so the output is unchanged at first."""
    from peft import IA3Config, inject_adapter_in_model

    targets = select.modules(slot, (*config.targets, *config.feedforward))
    feedforward = select.modules(slot, config.feedforward) if config.feedforward else []
    inject_adapter_in_model(
        IA3Config(
            target_modules=select.pattern(targets), feedforward_modules=select.pattern(feedforward)
        ),
        slot.module,
    )
    return select.adapters(slot)
