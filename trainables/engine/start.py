"""Starts the engine that trains a trial, and chooses its precision."""

from __future__ import annotations

import torch

from trainables.engine.base import Engine, Losses
from trainables.engine.deepspeed_config import Sizes, configuration
from trainables.engine.plain_engine import Plain
from trainables.recipe import AppliedRecipe


def start_engine(kind: str, losses: Losses, applied: AppliedRecipe, weight_decay: float) -> Engine:
    """Start an engine of a kind: ``off`` is plain PyTorch, all others are DeepSpeed with the
    ``configuration`` of that kind."""
    if kind == "off":
        return Plain(losses, applied, weight_decay)
    from trainables.engine import deepspeed_engine

    sizes = Sizes.of(losses, applied.parameters)
    settings = configuration(kind, sizes, cuda=torch.cuda.is_available())
    return deepspeed_engine.DeepSpeed(settings, losses, applied, weight_decay)


def resolve_precision(precision: str) -> str:
    """Replace ``auto`` by bf16 where the device multiplies it fast, and by fp32 elsewhere."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"
