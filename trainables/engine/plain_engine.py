"""Engine of plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from trainables.engine import ranks
from trainables.engine.base import Losses, count_questions
from trainables.engine.optimizers import make_optimizer, set_lr
from trainables.engine.training_settings import TrainingSettings
from trainables.model_contract import Batch
from trainables.recipe import AppliedRecipe


class Plain:
    """Engine that uses PyTorch alone. Ranks keep all parameters each and sum their gradients."""

    needs_all_ranks = False
    settings: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, losses: Losses, applied: AppliedRecipe, training: TrainingSettings) -> None:
        self.losses, self.parameters = losses, applied.parameters
        self.max_grad_norm = training.max_grad_norm
        self.optimizer = make_optimizer(applied, losses, training)

    def step(self, pieces: Sequence[Batch], lr: float) -> Tensor:
        mean = self.backward(pieces)
        ranks.all_reduce(self.gradients)
        clip([self])
        self.update(lr)
        return ranks.summed(mean)

    def backward(self, pieces: Sequence[Batch]) -> Tensor:
        """Compute this rank's part of the gradient; return its part of the mean loss."""
        count = count_questions(pieces) * ranks.current().count
        mean = torch.zeros((), device=pieces[0].image_B.device)
        for piece in pieces:
            loss: Tensor = self.losses(piece).sum() / count
            loss.backward()
            mean += loss.detach()
        return mean

    @property
    def gradients(self) -> list[Tensor]:
        """Current gradients of the parameters that have one."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def update(self, lr: float) -> None:
        """Take an optimizer step by the current gradient, and clear it."""
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def trained_weights(self) -> dict[str, Tensor]:
        return {n: p.detach().to("cpu", copy=True) for n, p in self.parameters.items()}

    def save(self, folder: Path) -> None:
        if ranks.current().first:
            # Into an open file: of a path that it cannot open, torch before 2.13 does not say why.
            with (folder / "optimizer.pt").open("wb") as file:
                torch.save(self.optimizer.state_dict(), file)

    def check_saved(self, folder: Path) -> None:
        torch.load(folder / "optimizer.pt", weights_only=True)

    def restore(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(trained[name])
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))


def clip(engines: Sequence[Plain]) -> None:
    """Clip the current gradient of each engine to its largest norm, as
    ``nn.utils.clip_grad_norm_`` does, in a few operations for all of them."""
    alike: dict[tuple[float, int], list[list[Tensor]]] = {}
    for engine in engines:
        gradients = engine.gradients
        if engine.max_grad_norm and gradients:
            alike.setdefault((engine.max_grad_norm, len(gradients)), []).append(gradients)
    for (largest, count), each in alike.items():
        norms = torch._foreach_norm([gradient for gradients in each for gradient in gradients])
        norms_M = torch.linalg.vector_norm(torch.stack(norms).view(-1, count), dim=1)
        factors_M = (largest / (norms_M + 1e-6)).clamp(max=1.0)
        for gradients, factor in zip(each, factors_M.unbind(), strict=True):
            torch._foreach_mul_(gradients, factor)
