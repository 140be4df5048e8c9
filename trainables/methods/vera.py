"""VeRA: trains two vectors per layer, which scale two random frozen matrices shared by all layers.

(Kopiczko et al. 2024, arXiv 2310.11454)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.errors import BadInput
from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``vera``.

    The update of a weight is diag(b) B diag(d) A, where A is (rank, in) and B (out, rank), both
    frozen. A and B are no parameters: like everything random, they follow from the trial's seed.
    """

    rank: int = 256
    start: float = 0.1
    """Initial value of d. b starts at zero."""
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value", "qkv")
    """Roles of the linear layers that get the vectors."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise BadInput(f"vera rank must be at least 1 but got {self.rank}")
        if self.start <= 0:
            raise BadInput(f"vera start must be positive but got {self.start}")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"vera dropout must be in [0, 1) but got {self.dropout}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Insert the vectors. b starts at zero, so the output is unchanged at first."""
    import torch
    from peft import VeraConfig, VeraModel

    names = select.linear(slot, "vera", config.targets)
    settings = VeraConfig(
        r=config.rank,
        d_initial=config.start,
        vera_dropout=config.dropout,
        target_modules=select.pattern(names),
        projection_prng_key=int(torch.randint(2**31, ())),
    )
    # peft's inject_adapter_in_model refuses methods whose layers share something.
    tuner: Any = VeraModel(slot.module, settings, "default")
    for shared in (tuner.vera_A, tuner.vera_B):  # peft leaves these two on the CPU
        shared.to(slot.module.get_submodule(names[0]).get_parameter("base_layer.weight").device)
    return select.adapters(slot)
