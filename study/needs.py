"""What each worker of a gang needs of its device, by DeepSpeed's ways of dividing a trial.

What is trained is T bytes, of which a worker owns T / workers. ZeRO-1 to 3 keep an fp32 copy of
the part, and its optimizer. Gradients are put into a buffer as they come, of T at most, and all
workers' are added up in a copy of it: at the end of the backward pass if the buffer holds all of
them, else on the way. What differs:

1. ZeRO-1 keeps the gradients beside the buffer,
2. ZeRO-2 only the part's, where a batch has several pieces; the update makes one tensor of it,
3. ZeRO-3 has a place for the part's all the time, and the buffer too. It has a part of all weights,
   but for the layer that runs, and the gradient of one; the base stays in the host's memory.

Offloaded, the fp32 copy, the optimizer and the part's gradients are in the host's memory, with a
copy for the way there and back; under ZeRO-3 the part of the weights as well. One gradient at a
time is on its way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.zero_settings import BUCKET, OFFLOAD

if TYPE_CHECKING:
    from trainables.footprint import Footprint


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Peak bytes of each device of a trial, and of the host's memory beside it."""

    device: int
    host: int = 0


def sharded(footprint: Footprint, kind: str, workers: int) -> Needs:
    """What each worker of a gang needs, from the footprint of its share of a batch on one device.
    ``kind`` is ``trainables.engine.start``'s, but for ``off``."""
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
    return Needs(device=state + max(backward, reduced, update), host=host)


def _whole(footprint: Footprint) -> Needs:
    """Nothing is divided, and all gradients are added up in a copy."""
    state = footprint.weights + footprint.trained + footprint.optimizer
    return Needs(device=state + max(footprint.passes, 2 * footprint.trained))


def _weights_too(footprint: Footprint, workers: int, *, offload: bool) -> Needs:
    """ZeRO-3."""
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
    return Needs(device=state + max(backward, reduced, update), host=host)


class _Part:
    """Bytes of what a worker owns of what is trained; all of it is kept in fp32."""

    def __init__(self, footprint: Footprint, workers: int) -> None:
        self.master = self.gradients = footprint.trained // workers
        self.optimizer = footprint.optimizer // workers
        self.buffer = min(footprint.trained, BUCKET * 4)
        self.overflows = footprint.trained > self.buffer
        """The buffer does not hold all gradients."""
        self.largest = min(footprint.layer, footprint.trained)
        """Of the gradients, at most."""
