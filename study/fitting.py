"""Where each arm fits, by predicted memory; known before anything starts.

What a trial needs is predicted (``trainables.footprint``); what there is, is the cluster's. The
first of these that fits is taken, since each costs more time than the one before:

1. one device, whole batches; as many trials on it as fit beside the one resident base,
2. one device, each batch in pieces whose gradients are added up,
3. one device, pieces, and layers that are computed twice to keep less of them,
4. several devices, which share a batch and, by DeepSpeed's ZeRO-2, the optimizer's state,
5. the same by ZeRO-3, which shares the weights as well,
6. one device or several whose optimizer is in the host's memory (``2-offload``),
7. the same with the weights there too (``3-offload``).

The batch of an optimizer step is the same in all of them, and so is what comes out. The last two
are for devices with a memory of their own: a processor's is the host's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.placement import CUDA_BYTES, GIB, USABLE, Devices, Infeasible, Placement
from trainables.zero_settings import BUCKET, OFFLOAD

if TYPE_CHECKING:
    from trainables.footprint import Footprint

GATHERED_LAYERS = 4
"""Under ZeRO-3, of the largest: the one that runs, the next, and what was asked for ahead."""
MOST_SHARING = 8
"""Trials on one device: more gain nothing."""

Predict = Callable[[int, int, bool], "Footprint"]
"""From the questions of a piece, the number of pieces and whether layers are computed twice to a
footprint on one device."""


def place(
    predict: Predict, batch_size: int, devices: Devices, correction: float = 1.0
) -> Placement | Infeasible:
    """The cheapest way that fits. ``correction``: what was measured to what was predicted."""
    whole = predict(batch_size, 1, False)
    if whole.peak * correction <= devices.usable:
        return _whole(whole, batch_size, devices, correction)
    best: tuple[int, _Way] | None = None
    for way in _ways(batch_size, devices, resident=whole.weights * correction <= devices.usable):
        found = _in_pieces(predict, batch_size // way.workers, devices, correction, way)
        if isinstance(found, Placement):
            return found
        if found is not None and (best is None or found < best[0]):
            best = found, way
    assert best is not None, "one device without offload asks nothing of the host"
    return _nowhere(predict(1, min(batch_size, 2), True), *best, devices)


# --- 1. What is needed ----------------------------------------------------------------------------


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


# --- 2. What there is -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Way:
    """One of those above, but for the pieces of a batch."""

    workers: int
    kind: str
    """Of engine; see ``trainables.engine.start``."""
    twice: bool
    """Layers are computed twice."""

    def needs(self, footprint: Footprint, correction: float) -> Needs:
        if self.kind == "off":
            return Needs(device=int(footprint.peak * correction))
        found = sharded(footprint, self.kind, self.workers)
        return Needs(device=int(found.device * correction), host=int(found.host * correction))

    @property
    def shown(self) -> str:
        """In words."""
        devices = f"on {self.workers} devices" if self.workers > 1 else "on one device"
        stage = self.kind.removesuffix(OFFLOAD)
        by = "" if self.kind == "off" else f" by ZeRO-{stage}"
        return devices + by + (" with offload" if self.kind.endswith(OFFLOAD) else "")


def _ways(batch_size: int, devices: Devices, *, resident: bool) -> Iterator[_Way]:
    """From the cheapest to the dearest; workers share a batch evenly. ``resident``: the base fits
    on a device, so whoever has one to itself has the base there."""
    several = [n for n in range(2, devices.count + 1) if batch_size % n == 0]
    kinds = [("off", [1]), ("2", several), ("3", several)]
    if devices.usable_host:
        kinds.append((f"2{OFFLOAD}", [1, *several]))
        kinds.append((f"3{OFFLOAD}", several if resident else [1, *several]))
    for kind, counts in kinds:
        for workers in counts:
            for twice in (False, True):
                yield _Way(workers=workers, kind=kind, twice=twice)


def _whole(footprint: Footprint, batch_size: int, devices: Devices, correction: float) -> Placement:
    """A whole batch on one device, shared with as many others as fit."""
    peak = int(footprint.peak * correction)
    own = max(int(footprint.own * correction), 1)
    sharing = min(1 + (devices.usable - peak) // own, MOST_SHARING)
    return Placement(
        lane="shared" if sharing > 1 else "solo",
        devices=1,
        deepspeed="off",
        micro_batch=batch_size,
        pieces=1,
        sharing=sharing,
        peak=peak,
        reason=(
            f"{_shown(footprint.weights)} of weights once and {_shown(own)} for each of {sharing}"
            if sharing > 1
            else f"{_shown(peak)} of {_shown(devices.usable)}"
        ),
    )


def _in_pieces(
    predict: Predict, share: int, devices: Devices, correction: float, way: _Way
) -> Placement | int | None:
    """One way with the largest pieces of a worker's share that fit. If not even the smallest do,
    the bytes of a device that those take; None if it is the host's memory that lacks."""
    needs = way.needs(predict(1, min(share, 2), way.twice), correction)
    if needs.device > devices.usable:
        return needs.device
    if needs.host > devices.usable_host > 0:
        return None
    pieces, micro_batch = 1, share
    while True:
        needs = way.needs(predict(micro_batch, pieces, way.twice), correction)
        if needs.device <= devices.usable:
            break
        pieces = min(2 * pieces, share)
        micro_batch = -(-share // pieces)
    alone = predict(share * way.workers, 1, False)
    offloads = way.kind.endswith(OFFLOAD)
    where = "" if way.kind == "off" else f"{way.shown} "
    how = f"{pieces} pieces of {micro_batch}" if pieces > 1 else f"{micro_batch} questions"
    host = f", and {_shown(needs.host)} of the host's memory beside it" if offloads else ""
    return Placement(
        lane="gang" if way.workers > 1 else "solo",
        devices=way.workers,
        deepspeed=way.kind,
        checkpointing=way.twice,
        micro_batch=micro_batch,
        pieces=pieces,
        sharing=1,
        peak=needs.device,
        host=needs.host if offloads else 0,
        reason=(
            f"a whole batch would take {_shown(alone.peak * correction)} of "
            f"{_shown(devices.usable)}; {where}{how} "
            + ("with layers computed twice " if way.twice else "")
            + f"take {_shown(needs.device)}{' each' if way.workers > 1 else ''}{host}"
        ),
    )


# --- 3. Where nothing does ------------------------------------------------------------------------


def _nowhere(needs: Footprint, least: int, way: _Way, devices: Devices) -> Infeasible:
    """What does not fit, by how much, and what would do."""
    state = needs.trained + needs.gradients + needs.optimizer
    largest = max(
        (needs.weights, "the weights"),
        (state, "what is trained, with its gradients and optimizer"),
        (needs.own - state, "the activations of one question"),
    )
    remedy = {
        "the weights": "bf16 weights, or more devices",
        "what is trained, with its gradients and optimizer": "a recipe that trains less, or more "
        "devices",
        "the activations of one question": "a recipe that leaves the first slots frozen",
    }[largest[1]]
    device_gib = (least / USABLE + CUDA_BYTES) / GIB
    return Infeasible(
        least=least,
        reason=(
            f"it takes {_shown(least)} {way.shown}, one question at a time, and there are "
            f"{_shown(devices.usable)}; most of it is {largest[1]} ({_shown(largest[0])}): "
            f"{remedy}, or devices of {math.ceil(10 * device_gib) / 10:g} GiB"
            + ("" if devices.usable_host else "; no memory beside them is known to offload to")
        ),
    )


def _shown(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
