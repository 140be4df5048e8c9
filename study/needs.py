"""What each worker of a gang needs of its device, by DeepSpeed's ways of dividing a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.zero_settings import BUCKET, OFFLOAD

if TYPE_CHECKING:
    from trainables.footprint import Footprint

GATHERED_LAYERS = 4
"""Under ZeRO-3, of the largest: the one that runs, the next, and what was asked for ahead."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Peak bytes of each device of a trial, and of the host's memory beside it."""

    device: int
    host: int = 0


def sharded(footprint: Footprint, kind: str, workers: int) -> Needs:
    """What each worker of a gang needs, from the footprint of its share of a batch on one device.

    ZeRO-1 and above keep an fp32 copy of a worker's part of what is trained, and a buffer for the
    gradients on their way from the start of the backward pass; ZeRO-2 keeps gradients of that part
    alone; ZeRO-3 the weights too, but for the layers that are running or about to, and the base
    stays in the host's memory. With offload that copy, the optimizer's state and the gradients of
    the part are in the host's memory, and under ZeRO-3 the part of the weights.
    """
    stage, offload = int(kind.removesuffix(OFFLOAD)), kind.endswith(OFFLOAD)
    kept = sum(footprint.activations.values()) + sum(footprint.features.values())
    trained = footprint.trained
    owned = trained / workers if stage >= 1 else 0
    optimizer = footprint.optimizer / (workers if stage >= 1 else 1)
    buffer = min(trained, BUCKET * 4) if stage >= 1 else trained
    shrink = workers if stage >= 2 else 1
    gradients = footprint.gradients / shrink
    weights, host = footprint.weights + trained, 0.0
    if stage == 3:
        weights, host = int(weights / workers), float(footprint.weights)
    if offload:
        host += owned + optimizer + gradients + trained / shrink
        owned, optimizer, gradients = 0, 0, 0
    if stage == 3:
        host += weights if offload else 0
        weights = (0 if offload else weights) + GATHERED_LAYERS * footprint.layer
    state = weights + owned + optimizer
    backward = gradients + (buffer if stage >= 1 else 0)
    if stage == 3 and workers > 1:  # it hands the buffer round in parts, which are copied first
        backward += buffer
    backward += kept + footprint.batch + footprint.workspace
    update = buffer + (0 if offload else trained / shrink)
    return Needs(device=int(state + max(backward, update)), host=int(host))
