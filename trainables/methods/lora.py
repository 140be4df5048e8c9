"""LoRA: a trained product of two thin matrices beside each frozen one.

(Hu et al. 2021, arXiv 2106.09685)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.errors import BadInput
from trainables.methods import select

if TYPE_CHECKING:
    from trainables.models.contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """The update of a weight is (alpha / rank) B A, where A is (rank, in) and B (out, rank)."""

    rank: int = 8
    alpha_per_rank: float = 2.0
    """alpha / rank, the factor itself: rank and step size can then be searched apart."""
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value", "qkv")
    """Roles of the layers that get one; a fused ``qkv`` stands for query and value."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise BadInput(f"lora rank must be at least 1 but got {self.rank}")
        if self.alpha_per_rank <= 0:
            raise BadInput(f"lora alpha_per_rank must be positive but got {self.alpha_per_rank}")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"lora dropout must be in [0, 1) but got {self.dropout}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Put the adapters in; B is zero at first, so the output is unchanged."""
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(
        LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha_per_rank * config.rank,  # type: ignore[arg-type]  # any number
            lora_dropout=config.dropout,
            target_modules=select.pattern(select.modules(slot, config.targets)),
        ),
        slot.module,
    )
    return select.adapters(slot)
