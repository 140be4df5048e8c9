"""Interface of an engine, which takes training steps, and what all engines share.

Plain PyTorch (``trainables.engine.plain_engine``) and DeepSpeed
(``trainables.engine.deepspeed_engine``) take the same gradient of the same mean loss, clip it to
the same norm and use the same optimizer. So a trial's losses agree within rounding whichever engine
runs it, on however many ranks (the processes of a gang, ``trainables.engine.ranks``) and in however
many pieces a batch is computed. Dropout is the exception: its masks are drawn for each piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainables.model_contract import Batch, Model, Skeleton


class Losses(nn.Module):
    """Module whose forward pass is the loss that training minimises, in the trial's precision."""

    def __init__(
        self,
        model: Model | Skeleton,
        network: nn.Module,
        precision: str,
        *,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.network, self.precision = model, network, precision
        self.smoothing = smoothing
        """Label smoothing, in training mode only: trials are compared by the plain likelihood."""

    def forward(self, batch: Batch) -> Tensor:
        """Loss of each question, of shape (B,)."""
        with self.autocast(batch.pixels_UCSS.device):
            smoothing = self.smoothing if self.training else 0.0
            return self.model.losses(self.network, batch, smoothing=smoothing)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Context in which matrix products are computed in bf16, if that is the precision;
        parameters keep their type."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")


class Engine(Protocol):
    """Trains the parameters of one network. All ranks call its methods together."""

    settings: Mapping[str, Any]
    """DeepSpeed's configuration; empty for another engine."""
    needs_all_ranks: bool
    """Whether a forward pass needs all ranks at once, as no rank has all weights."""

    def step(self, pieces: Sequence[Batch], lr: float) -> Tensor:
        """Take one optimizer step on a batch; return the mean loss before it, a detached scalar.

        The batch is all pieces of all ranks, each question of equal weight. All ranks must have the
        same number of pieces and of questions.
        """

    def trained_weights(self) -> dict[str, Tensor]:
        """Trained parameters by name, whole, on the CPU."""

    def save(self, folder: Path) -> None:
        """Write the optimizer's state, or this rank's part of it, into ``folder``."""

    def check_saved(self, folder: Path) -> None:
        """Check that this rank can read its part of the optimizer's state in ``folder``. Nothing is
        restored.

        Raises:
            Exception: the state cannot be read; the type depends on what is damaged.
        """

    def restore(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        """Restore the trained parameters and the optimizer's state as they were at ``save``."""


def count_questions(pieces: Sequence[Batch]) -> int:
    """Number of questions in all pieces of a batch."""
    return sum(len(piece.image_B) for piece in pieces)
