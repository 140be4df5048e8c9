"""Muon in fp32; torch's own computes in bf16, thirty times as slow on a CPU that lacks bf16."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MOMENTUM = 0.95
_WEIGHT_DECAY = 0.1
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) with Nesterov momentum.

    The step of a matrix is its momentum with all singular values made about 1, scaled to the size
    of a step of AdamW (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
    """

    def __init__(self, matrices: Sequence[Tensor], lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is used
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - _MOMENTUM)
                ahead = matrix.grad.lerp(momentum, _MOMENTUM)
                matrix.mul_(1 - group["lr"] * _WEIGHT_DECAY)
                size = 0.2 * math.sqrt(max(matrix.shape))
                matrix.add_(_orthogonal(ahead), alpha=-group["lr"] * size)


def _orthogonal(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix, approximately, by Newton-Schulz iterations.

    Its singular values are 0.7 to 1.2.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
