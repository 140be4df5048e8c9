"""State of bitsandbytes' AdamW of 8 bits, without bitsandbytes: for predicting memory.

Its kernels take addresses of memory, which the tensors of a prediction do not have.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

SMALLEST = 4096
"""Number of values from which a parameter's moments have 8 bits each; below, they are fp32."""
BLOCK = 256
"""Number of values that share a scale in fp32."""


class EightBitState(torch.optim.Optimizer):
    """Optimizer that allocates what bitsandbytes' ``AdamW8bit`` does and changes nothing."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no loss
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter not in self.state:
                    self.state[parameter] = _moments(parameter)


def _moments(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    count = parameter.numel()
    if count < SMALLEST:
        return {name: torch.zeros(count) for name in ("state1", "state2")}
    values = {name: torch.zeros(count, dtype=torch.uint8) for name in ("state1", "state2")}
    scales = {name: torch.zeros(-(-count // BLOCK)) for name in ("absmax1", "absmax2")}
    return values | scales
