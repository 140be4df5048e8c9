"""my_method: trains a factor for each output of some linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.errors import BadInput
from trainables.methods.common import select

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``my_method``."""

    start: float = 1.0
    """Factor at the start; with any other than 1 the output is changed before training."""
    targets: tuple[str, ...] = ("attention_output",)
    """Roles of the linear layers whose outputs get a factor."""

    def __post_init__(self) -> None:
        if self.start <= 0:
            raise BadInput(f"my_method start must be positive but got {self.start}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Wrap the layers, and name the factors."""
    import torch
    from torch import nn

    class Scaled(nn.Module):
        """A linear layer whose outputs have a factor each."""

        def __init__(self, base_layer: nn.Linear) -> None:
            super().__init__()
            self.base_layer = base_layer
            start = torch.full((base_layer.out_features,), config.start)
            self.factor = nn.Parameter(start.to(base_layer.weight.device))

        def forward(self, x_BTD: Tensor) -> Tensor:
            y_BTD: Tensor = self.base_layer(x_BTD)
            return (y_BTD * self.factor).to(y_BTD.dtype)

    for name in select.linear(slot, "my_method", config.targets):
        layer = slot.module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        slot.module.set_submodule(name, Scaled(layer))
    return select.adapters(slot)
