"""Memory of each worker of a gang, by DeepSpeed's ways of dividing a trial (ZeRO).

What is trained takes T bytes, of which a worker owns a part of T / workers. ZeRO-1 to 3 keep an
fp32 copy of the part, and its optimizer state. Gradients go into a buffer of at most T bytes as
they are computed. The gradients of all workers are added up in a copy of the buffer: at the end of
the backward pass if the buffer holds all of them, else during it. The stages differ in what else
they keep:

1. ZeRO-1 keeps the gradients beside the buffer.
2. ZeRO-2 keeps only the part's gradients, where a batch has several pieces or the buffer
   overflows; the update makes one tensor of them.
3. ZeRO-3 has room for the part's gradients all the time, and for the buffer. A worker has its
   part of all weights, the whole weights of the layer that runs, and one whole gradient; the
   base stays in the host's memory.

With offload, the fp32 copy, the optimizer state and the part's gradients are in the host's memory,
with a copy for the transfer; under ZeRO-3 the part of the weights is there as well. One gradient at
a time is being transferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.engine.deepspeed_config import BUCKET, OFFLOAD

if TYPE_CHECKING:
    from trainables.memory.footprint import Footprint


@dataclass(frozen=True, kw_only=True)
class WorkerMemory:
    """Peak memory of each worker of a trial."""

    device: int
    """Bytes of the worker's device."""
    host: int = 0
    """Bytes of the host's memory beside the device."""


def sharded(footprint: Footprint, kind: str, workers: int) -> WorkerMemory:
    """Memory of each worker of a gang, from the footprint of its share of a batch on one device.
    ``kind`` is any that ``trainables.engine.start.start_engine`` takes, except ``off``."""
    stage, offload = int(kind.removesuffix(OFFLOAD)), kind.endswith(OFFLOAD)
    if stage == 0:
        return _whole(footprint)
    if stage == 3:
        return _weights_too(footprint, workers, offload=offload)
    trained = footprint.trained
    part = _Part(footprint, workers)
    state, passes = footprint.weights + trained, footprint.passes_alone
    carried = part.gradients if footprint.pieces > 1 or part.overflows else 0
    if offload:
        host = part.master + part.optimizer + 2 * part.gradients + carried + part.largest
        state, carried, update = state + part.largest, 0, 0
    else:
        host, update = 0, 2 * part.gradients
        state += part.master + part.optimizer
    if stage == 1:
        carried, passes = 0, footprint.passes
    backward = part.buffer + carried + passes + (part.buffer if part.overflows else 0)
    reduced = 2 * part.buffer + carried
    return WorkerMemory(device=state + max(backward, reduced, update), host=host)


def _whole(footprint: Footprint) -> WorkerMemory:
    """Memory by ZeRO-0: nothing is divided, and all gradients are added up in a copy."""
    state = footprint.weights + footprint.trained + footprint.optimizer
    return WorkerMemory(device=state + max(footprint.passes, 2 * footprint.trained))


def _weights_too(footprint: Footprint, workers: int, *, offload: bool) -> WorkerMemory:
    """Memory by ZeRO-3, which divides the weights too."""
    part = _Part(footprint, workers)
    frozen = (footprint.weights - footprint.copied) // workers
    weights, host = frozen + part.gradients, footprint.weights
    owned = part.master + part.optimizer + part.gradients
    gathered = footprint.layer + part.largest  # one layer is whole, and so may its gradient be
    if offload:
        host += weights + owned + part.gradients
        state, on_its_way, update = part.buffer, part.largest, 0
    else:
        state, on_its_way, update = part.buffer + weights + owned, 0, part.gradients
    backward = footprint.passes_alone + gathered + (part.buffer if part.overflows else 0)
    reduced = part.buffer + gathered + on_its_way
    return WorkerMemory(device=state + max(backward, reduced, update), host=host)


class _Part:
    """Bytes of the part that a worker owns of what is trained; all of it is kept in fp32."""

    def __init__(self, footprint: Footprint, workers: int) -> None:
        self.master = self.gradients = footprint.trained // workers
        self.optimizer = footprint.optimizer // workers
        self.buffer = min(footprint.trained, BUCKET * 4)
        self.overflows = footprint.trained > self.buffer
        """Whether the buffer is too small to hold all gradients."""
        self.largest = min(footprint.layer, footprint.trained)
        """Upper bound on the bytes of one gradient."""
