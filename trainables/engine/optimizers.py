"""Makes a trial's optimizer: AdamW, AdamW with a state of 8 bits a value, or Muon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from trainables.engine.training_settings import TrainingSettings
from trainables.recipe import AppliedRecipe
from trainables.shared_layers.quantised_linear import check_kernels


def make_optimizer(
    applied: AppliedRecipe, network: nn.Module, training: TrainingSettings
) -> torch.optim.Optimizer:
    """Make the optimizer of what ``applied`` trains in ``network``.

    Weight decay is for matrices only, not for gains, biases and other vectors. IA3's vectors have
    none either, though peft holds them as matrices of one row or column: decay would pull them to
    0, not to 1. There is a parameter group for each weight decay and each factor on the learning
    rate.

    Raises:
        BadInput: the optimizer's package is not installed, or does not compute on the device.
    """
    training.check_installed()
    embeddings = {
        parameter
        for module in network.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    matrices: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in applied.parameters.items():
        vector = is_vector(name, parameter)
        hidden = parameter.ndim == 2 and not vector and parameter not in embeddings
        by_kind = matrices if training.optimizer == "muon" and hidden else groups
        by_kind.setdefault((vector, applied.lr_factors[name]), []).append(parameter)
    by_adamw, by_muon = (_with_options(some, training.weight_decay) for some in (groups, matrices))
    betas = (training.beta1, training.beta2)
    if training.optimizer == "adamw_8bit":
        import bitsandbytes

        check_kernels(next(iter(applied.parameters.values())).device)
        found: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(by_adamw, betas=betas)
        return found
    parts: list[torch.optim.Optimizer] = []
    if by_muon:
        # With this factor a matrix moves as far in a step as by AdamW, so that learning rates and
        # weight decay of AdamW suit (Liu et al. 2025, "Muon is scalable", arXiv 2502.16982).
        parts.append(torch.optim.Muon(by_muon, adjust_lr_fn="match_rms_adamw"))
    if by_adamw:
        parts.append(torch.optim.AdamW(by_adamw, betas=betas, fused=True))
    return parts[0] if len(parts) == 1 else _Joined(parts)


def is_vector(name: str, parameter: nn.Parameter) -> bool:
    """Whether a trained parameter is no matrix, so that weight decay and Muon are not for it."""
    return parameter.ndim <= 1 or ".ia3_l." in name


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set each parameter group's learning rate to ``lr`` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def _with_options(
    groups: dict[tuple[bool, float], list[nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups as PyTorch takes them, from groups by ``(is a vector, factor)``."""
    return [
        {"params": some, "weight_decay": 0.0 if vectors else weight_decay, "lr_factor": factor}
        for (vectors, factor), some in sorted(groups.items(), key=lambda group: group[0])
    ]


class _Joined(torch.optim.Optimizer):
    """Several optimizers, each of parameters of its own, that step together."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._join()

    def _join(self) -> None:
        """Let groups and state be those of the parts, as they are now."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self.state.clear()
        for part in self.parts:
            self.state.update(part.state)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no loss
        assert closure is None
        for part in self.parts:
            part.step()
        if not self.state:
            self._join()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._join()
