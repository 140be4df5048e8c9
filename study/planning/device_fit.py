"""Chooses where each arm fits by predicted memory, before anything starts.

What a trial needs is predicted (``trainables.memory.footprint``); what there is depends on the
cluster. The first of these ways that fits is taken, since each costs more time than the one before:

1. one device, whole batches; as many trials on it as fit beside the one resident base,
2. one device, each batch in pieces whose gradients are added up,
3. one device, pieces, and activation checkpointing: layers are computed twice to keep less of
   them,
4. several devices, which share a batch and, by DeepSpeed's ZeRO-2, the optimizer's state,
5. several devices with ZeRO-3, which shares the weights as well,
6. one device or several whose optimizer is in the host's memory (``2-offload``),
7. one device or several with both optimizer and weights in the host's memory (``3-offload``).

The batch of an optimizer step is the same in all of them, and so is the result. The last two are
for devices with a memory of their own: a processor's memory is the host's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from study.config.deployment import MOST_SHARING
from study.planning.placement import (
    CUDA_BYTES,
    GIB,
    USABLE,
    DeviceMemory,
    Infeasible,
    Placement,
    lane,
)
from study.planning.zero_memory import WorkerMemory, sharded
from trainables.engine.deepspeed_config import OFFLOAD, partitions_weights

if TYPE_CHECKING:
    from trainables.memory.footprint import Footprint

Predict = Callable[[int, int, bool], "Footprint"]
"""Function that predicts the footprint of training on one device, from the questions of a piece,
the number of pieces and whether layers are computed twice."""


Answer = Callable[[int], "Footprint"]
"""Function that predicts the footprint of answering with the untuned base on one device, from the
number of questions that are answered at once."""


def place(
    predict: Predict,
    answer: Answer,
    batch_size: int,
    devices: DeviceMemory,
    correction: float = 1.0,
    most_sharing: int = MOST_SHARING,
    *,
    other_sizes: Collection[int] = (),
    undivided: bool = False,
    divisible: bool = True,
) -> Placement | Infeasible:
    """The cheapest placement that fits both when a trial trains and when it answers.

    Args:
        predict: footprint of training.
        answer: footprint of answering.
        batch_size: questions of an optimizer step; the largest number, if trials differ.
        devices: the memory that there is.
        correction: ratio of measured to predicted memory.
        most_sharing: maximum number of trials on one device.
        other_sizes: questions of an optimizer step of other trials, which the same devices must
            share evenly.
        undivided: whether the optimizer needs what is trained undivided, which DeepSpeed's ways do
            not leave it.
        divisible: whether several devices can divide the base's weights, as ZeRO-3 does; those of
            a base in four bits are whole on each.
    """
    even = math.gcd(batch_size, *other_sizes)
    whole = predict(batch_size, 1, False)
    if whole.peak * correction <= devices.usable:
        found = _whole(whole, batch_size, devices, correction, most_sharing)
        at_once = _answered(answer, whole, ALONE, devices, correction, found.sharing)
        if at_once:
            return replace(found, evaluation_batch=at_once)
    lacking: list[tuple[int, _Way]] = []
    resident = whole.weights * correction <= devices.usable
    for way in _ways(even, devices, resident=resident, divisible=divisible):
        if undivided and way.kind != "off":
            continue
        share = batch_size // way.workers
        found_or_lacks = _in_pieces(predict, answer, share, devices, correction, way)
        if isinstance(found_or_lacks, Placement):
            return found_or_lacks
        if found_or_lacks is not None:
            lacking.append((found_or_lacks, way))
    # One device without offload needs nothing of the host, so at least one way fails on a device.
    least, way = min(lacking, key=lambda found: found[0])
    return _nowhere(predict(1, min(batch_size, 2), True), least, way, devices, divisible)


def place_untuned(
    answer: Answer,
    batch_size: int,
    devices: DeviceMemory,
    sharing: int,
    correction: float = 1.0,
    *,
    divisible: bool = True,
) -> Placement | Infeasible:
    """The cheapest placement of the untuned model, which only answers. On one device it runs beside
    other trials, ``sharing`` in all, if it fits. ``batch_size`` must be divisible by the number of
    workers, as it must for arms; ``divisible`` is that of ``place``."""
    one = answer(1)
    lacking: list[tuple[int, _Way]] = []
    resident = one.weights * correction <= devices.usable
    for way in _ways(batch_size, devices, resident=resident, divisible=divisible):
        needs = way.needs(one, correction)
        if needs.device > devices.usable:
            lacking.append((needs.device, way))
        elif not needs.host > devices.usable_host > 0:
            beside = way == ALONE and _answered(answer, one, way, devices, correction, sharing) > 0
            return _answering(answer, way, devices, sharing if beside else 1, correction)
    least, way = min(lacking, key=lambda found: found[0])
    return _nowhere(one, least, way, devices, divisible)


@dataclass(frozen=True, kw_only=True)
class _Way:
    """Way of running a trial, as the module lists them, without the number of pieces of a batch."""

    workers: int
    """Number of devices, each with a process of its own."""
    kind: str
    """Kind of engine that ``trainables.engine.start.start_engine`` takes."""
    twice: bool
    """Whether layers are computed twice (activation checkpointing)."""

    def needs(self, footprint: Footprint, correction: float) -> WorkerMemory:
        """Memory of each worker, from the footprint of its share of a batch on one device."""
        if self.kind == "off":
            return WorkerMemory(device=int(footprint.peak * correction))
        found = sharded(footprint, self.kind, self.workers)
        return WorkerMemory(
            device=int(found.device * correction), host=int(found.host * correction)
        )

    @property
    def shown(self) -> str:
        """The way in words."""
        devices = f"on {self.workers} devices" if self.workers > 1 else "on one device"
        stage = self.kind.removesuffix(OFFLOAD)
        by = "" if self.kind == "off" else f" by ZeRO-{stage}"
        return devices + by + (" with offload" if self.kind.endswith(OFFLOAD) else "")


ALONE = _Way(workers=1, kind="off", twice=False)
"""The way of one device with plain PyTorch."""


def _ways(even: int, devices: DeviceMemory, *, resident: bool, divisible: bool) -> Iterator[_Way]:
    """All ways from the cheapest to the dearest. The number of workers of each divides ``even``, so
    that they share a batch evenly.
    ``resident``: the base fits on a device, so a trial that has a device to itself has the base
    there."""
    several = [n for n in range(2, min(devices.count, even) + 1) if even % n == 0]
    kinds = [("off", [1]), ("2", several), ("3", several)]
    if devices.usable_host:
        kinds.append((f"2{OFFLOAD}", [1, *several]))
        kinds.append((f"3{OFFLOAD}", several if resident else [1, *several]))
    for kind, counts in kinds:
        if partitions_weights(kind) and not divisible:
            continue
        for workers in counts:
            for twice in (False, True):
                yield _Way(workers=workers, kind=kind, twice=twice)


def _whole(
    footprint: Footprint,
    batch_size: int,
    devices: DeviceMemory,
    correction: float,
    most_sharing: int,
) -> Placement:
    """Placement of whole batches on one device, shared with as many other trials as fit."""
    peak = int(footprint.peak * correction)
    each = max(int(footprint.without_base * correction), 1)
    sharing = min(1 + (devices.usable - peak) // each, most_sharing)
    return Placement(
        lane=lane(1, sharing),
        devices=1,
        deepspeed="off",
        micro_batch=batch_size,
        pieces=1,
        sharing=sharing,
        peak=peak,
        reason=(
            f"{_shown(footprint.weights)} of weights once and {_shown(each)} for each of {sharing}"
            if sharing > 1
            else f"{_shown(peak)} of {_shown(devices.usable)}"
        ),
    )


def _in_pieces(
    predict: Predict,
    answer: Answer,
    share: int,
    devices: DeviceMemory,
    correction: float,
    way: _Way,
) -> Placement | int | None:
    """Placement by one way, with the largest pieces of a worker's share that fit. If not even the
    smallest pieces fit, the bytes of a device that they take; None if the host's memory is too
    small."""
    smallest = predict(1, min(share, 2), way.twice)
    needs = way.needs(smallest, correction)
    if needs.device > devices.usable:
        return needs.device
    if needs.host > devices.usable_host > 0:
        return None
    at_once = _answered(answer, smallest, way, devices, correction)
    if not at_once:
        return way.needs(_beside(smallest, answer(1)), correction).device
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
        lane=lane(way.workers, 1),
        devices=way.workers,
        deepspeed=way.kind,
        activation_checkpointing=way.twice,
        micro_batch=micro_batch,
        pieces=pieces,
        evaluation_batch=at_once,
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


def _answered(
    answer: Answer,
    trial: Footprint,
    way: _Way,
    devices: DeviceMemory,
    correction: float,
    sharing: int = 1,
) -> int:
    """Maximum number of questions that a ``trial`` can answer at once, if ``sharing`` trials are on
    its device; 0 if not even one."""
    from trainables.training.trial import EVALUATION_BATCH

    questions = EVALUATION_BATCH
    while questions:
        found = _beside(trial, answer(questions))
        others = (sharing - 1) * int(found.without_base * correction)
        if way.needs(found, correction).device + others <= devices.usable:
            break
        questions //= 2
    return questions


def _beside(trial: Footprint, answering: Footprint) -> Footprint:
    """Footprint of a trial that answers: its own trained parameters and optimizer state, no
    backward pass, and what answering takes."""
    return replace(answering, trained=trial.trained, optimizer=trial.optimizer)


def _answering(
    answer: Answer, way: _Way, devices: DeviceMemory, sharing: int, correction: float
) -> Placement:
    """Placement of the untuned model by one way, with the most questions at once that fit."""
    at_once = _answered(answer, answer(1), way, devices, correction, sharing)
    needs = way.needs(answer(at_once), correction)
    return Placement(
        lane=lane(way.workers, sharing),
        devices=way.workers,
        deepspeed=way.kind,
        micro_batch=at_once,
        pieces=1,
        evaluation_batch=at_once,
        sharing=sharing,
        peak=needs.device,
        host=needs.host if way.kind.endswith(OFFLOAD) else 0,
        reason=f"it only answers, {way.shown}: {_shown(needs.device)} of {_shown(devices.usable)}",
    )


def _nowhere(
    needs: Footprint, least: int, way: _Way, devices: DeviceMemory, divisible: bool
) -> Infeasible:
    """Reason why nothing fits: how much is needed, what takes most of it, and what would help."""
    state = needs.trained + needs.gradients + needs.optimizer
    largest = max(
        (needs.weights, "the weights"),
        (state, "what is trained, with its gradients and optimizer"),
        (needs.without_base - state, "the activations of one question"),
    )
    remedy = {
        "the weights": "bf16 weights, or more devices" if divisible else "a smaller model",
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
