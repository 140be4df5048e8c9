"""The bottleneck layer of method ``adapter``, which peft does not have."""

from __future__ import annotations

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """A linear layer with a bottleneck adapter after it: y becomes y + up(gelu(down(y)))."""

    def __init__(self, base_layer: nn.Linear, width: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down = nn.Linear(base_layer.out_features, width)
        self.up = nn.Linear(width, base_layer.out_features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        # Initialised on the CPU, so that a seed gives the same values on every device.
        self.to(base_layer.weight.device)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Run layer and adapter; shape (B, T, D), in the type of the base layer's output."""
        y_BTD: Tensor = self.base_layer(x_BTD)
        narrow_BTR = nn.functional.gelu(self.down(y_BTD.to(self.down.weight.dtype)))
        added_BTD: Tensor = self.up(narrow_BTR)
        return y_BTD + added_BTD.to(y_BTD.dtype)
