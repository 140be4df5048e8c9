"""Adapters: a bottleneck network after each frozen layer, added to the layer's output.

(Houlsby et al. 2019, arXiv 1902.00751; only after feed-forward blocks: Pfeiffer et al. 2021, arXiv
2005.00247)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.errors import BadInput
from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``adapter``: y becomes y + up(gelu(down(y))), and down(y) has width ``width``."""

    width: int = 64
    targets: tuple[str, ...] = ("attention_output", "ffn_out")
    """Roles of the linear layers that get an adapter after them, before the residual connection.
    The default is Houlsby's; Pfeiffer's is ``("ffn_out",)``."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise BadInput(f"adapter width must be at least 1 but got {self.width}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Insert the adapters. ``up`` starts at zero, so the output is unchanged at first."""
    from torch import nn

    from trainables.methods.common.bottleneck import Bottleneck

    for name in select.linear(slot, "adapter", config.targets):
        layer = slot.module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        slot.module.set_submodule(name, Bottleneck(layer, config.width))
    return select.adapters(slot)
