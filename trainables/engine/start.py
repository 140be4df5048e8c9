"""Starts the engine that trains a trial, and chooses its precision."""

from __future__ import annotations

from trainables.devices import accelerator
from trainables.engine.base import Engine, Losses
from trainables.engine.deepspeed_config import (
    Sizes,
    configuration,
    divides_optimizer,
    zero_stage,
)
from trainables.engine.plain_engine import Plain
from trainables.engine.training_settings import UNDIVIDED, TrainingSettings
from trainables.errors import BadInput
from trainables.recipe import AppliedRecipe


def start_engine(
    kind: str, losses: Losses, applied: AppliedRecipe, training: TrainingSettings
) -> Engine:
    """Start an engine of a kind: ``off`` is plain PyTorch, all others are DeepSpeed with the
    ``configuration`` of that kind.

    Raises:
        BadInput: the optimizer's package is not installed, or DeepSpeed would divide what the
            optimizer needs whole.
    """
    if kind == "off":
        return Plain(losses, applied, training)
    from trainables.engine import deepspeed_engine

    sizes = Sizes.measure(losses, applied.parameters)
    pinned, norm = accelerator.pins(accelerator.current()), training.max_grad_norm
    settings = configuration(kind, sizes, pinned=pinned, max_grad_norm=norm)
    if training.optimizer in UNDIVIDED and divides_optimizer(kind):
        raise BadInput(
            f"optimizer {training.optimizer!r} does not run by ZeRO-{zero_stage(settings)}, which "
            "divides what is trained among devices: give --deepspeed off, or optimizer 'adamw'"
        )
    return deepspeed_engine.DeepSpeed(settings, losses, applied, training)


def resolve_precision(precision: str) -> str:
    """Replace ``auto`` by bf16 where the device multiplies it fast, and by fp32 elsewhere."""
    if precision != "auto":
        return precision
    return "bf16" if accelerator.multiplies_bf16_fast() else "fp32"
