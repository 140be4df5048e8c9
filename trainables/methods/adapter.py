"""Adapters: a narrow network behind each frozen layer, added to what it gives.

(Houlsby et al. 2019, arXiv 1902.00751; only behind feed-forward blocks: Pfeiffer et al. 2021, arXiv
2005.00247)
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
    """y becomes y + up(gelu(down(y))), where ``down`` leads to ``width`` dimensions."""

    width: int = 64
    targets: tuple[str, ...] = ("attention_output", "ffn_out")
    """Roles of the linear layers that get one behind them, ahead of the residual connection:
    Houlsby's. Pfeiffer's is ``("ffn_out",)``."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise BadInput(f"adapter width must be at least 1 but got {self.width}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Put the adapters in; ``up`` is zero at first, so the output is unchanged."""
    from torch import nn

    from trainables.methods.bottleneck import Bottleneck

    for name in select.linear(slot, "adapter", config.targets):
        layer = slot.module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        slot.module.set_submodule(name, Bottleneck(layer, config.width))
    return select.adapters(slot)
