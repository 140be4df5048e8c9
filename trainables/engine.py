"""One training step, by plain PyTorch here or by DeepSpeed (``trainables.zero``).

Both take the same gradient of the same mean loss, clip it to the same norm and use the same AdamW,
so a trial's losses agree within rounding whichever engine runs it, on however many ranks (the
processes of a gang, ``trainables.ranks``) and in however many pieces a batch is computed; but for
dropout, whose masks are drawn for each piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainables import ranks
from trainables.models.contract import Batch, Model, Skeleton
from trainables.recipe import Applied
from trainables.zero_settings import CLIP_NORM, Sizes, configuration


class Losses(nn.Module):
    """A network as a module whose forward is what is minimised, in the trial's precision."""

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
        """Label smoothing, in training mode only: what is compared is the plain likelihood."""

    def forward(self, batch: Batch) -> Tensor:
        """Shape (B,): the loss of each question."""
        with self.autocast(batch.pixels_UCSS.device):
            smoothing = self.smoothing if self.training else 0.0
            return self.model.losses(self.network, batch, smoothing=smoothing)

    def autocast(self, device: torch.device) -> torch.autocast:
        """bf16 for matrix products if asked for; parameters stay as they are."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")


class Engine(Protocol):
    """Trains one network's parameters. All ranks call its methods together."""

    settings: Mapping[str, Any]
    """DeepSpeed's configuration; empty if it is not DeepSpeed's."""
    together: bool
    """A forward pass needs all ranks at once, as no one has all weights."""

    def step(self, pieces: Sequence[Batch], lr: float) -> Tensor:
        """One optimizer step on a batch; the mean loss before it, a scalar without gradient.

        The batch is all pieces of all ranks, each question of equal weight. All ranks must have
        the same number of pieces and of questions.
        """

    def trained(self) -> dict[str, Tensor]:
        """The trained parameters by name, whole, on the CPU."""

    def save(self, folder: Path) -> None:
        """Write the optimizer's state into ``folder``, or what this rank has of it."""

    def look(self, folder: Path) -> None:
        """Read what this rank would of the optimizer's state in ``folder``, and take nothing back.

        Raises:
            Exception: of any kind; it cannot be read.
        """

    def restore(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        """Take back trained parameters and the optimizer's state as ``save`` left them."""


def start(kind: str, losses: Losses, applied: Applied, weight_decay: float) -> Engine:
    """An engine of ``kind``: ``off`` is plain PyTorch, all others are ``configuration``'s."""
    if kind == "off":
        return Plain(losses, applied, weight_decay)
    from trainables import zero  # it imports this module, and with it what takes seconds

    sizes = Sizes.of(losses, applied.parameters)
    settings = configuration(kind, sizes, cuda=torch.cuda.is_available())
    return zero.DeepSpeed(settings, losses, applied, weight_decay)


def resolve_precision(precision: str) -> str:
    """``auto`` is bf16 where the device multiplies it fast, fp32 elsewhere."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"


def adamw(applied: Applied, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices, none for gains, biases and other vectors, among them
    IA3's, which peft holds as matrices of one row or column: decay would pull them to 0, not to 1.

    A group for each decay and each factor on the learning rate.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in applied.parameters.items():
        vector = parameter.ndim <= 1 or ".ia3_l." in name
        groups.setdefault((vector, applied.lr_factors[name]), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": some, "weight_decay": 0.0 if vectors else weight_decay, "lr_factor": factor}
            for (vectors, factor), some in sorted(groups.items(), key=lambda group: group[0])
        ],
        fused=True,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Each group's is ``lr`` by its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def questions(pieces: Sequence[Batch]) -> int:
    """Of a batch in pieces."""
    return sum(len(piece.image_B) for piece in pieces)


class Plain:
    """PyTorch alone; among several ranks each keeps everything, and gradients are added up."""

    together = False
    settings: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, losses: Losses, applied: Applied, weight_decay: float) -> None:
        self.losses, self.parameters = losses, applied.parameters
        self.optimizer = adamw(applied, weight_decay)

    def step(self, pieces: Sequence[Batch], lr: float) -> Tensor:
        mean = self.backward(pieces)
        ranks.add_up(p.grad for p in self.parameters.values() if p.grad is not None)
        self.update(lr)
        return ranks.total(mean)

    def backward(self, pieces: Sequence[Batch]) -> Tensor:
        """This rank's part of the gradient, and of the loss."""
        count = questions(pieces) * ranks.here().count
        mean = torch.zeros((), device=pieces[0].image_B.device)
        for piece in pieces:
            loss: Tensor = self.losses(piece).sum() / count
            loss.backward()
            mean += loss.detach()
        return mean

    def update(self, lr: float) -> None:
        """Clip the gradient that is there, take an optimizer step and forget it."""
        nn.utils.clip_grad_norm_(self.parameters.values(), CLIP_NORM)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def trained(self) -> dict[str, Tensor]:
        return {n: p.detach().to("cpu", copy=True) for n, p in self.parameters.items()}

    def save(self, folder: Path) -> None:
        if ranks.here().first:
            torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")

    def look(self, folder: Path) -> None:
        torch.load(folder / "optimizer.pt", weights_only=True)

    def restore(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(trained[name])
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
