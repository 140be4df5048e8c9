"""Where each arm runs: on a share of a device, on one, or on several; known before anything starts.

What a trial needs is predicted (``trainables.footprint``); what there is, is the cluster's. The
first of these that fits is taken, since each costs more time than the one before:

1. one device, whole batches; as many trials on it as fit beside the one resident base,
2. one device, each batch in pieces whose gradients are added up,
3. one device, pieces, and layers that are computed twice to keep less of them,
4. several devices, which share a batch and, by DeepSpeed's ZeRO-2, the optimizer's state,
5. the same by ZeRO-3, which shares the weights as well.

The batch of an optimizer step is the same in all of them, and so is what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trainables.errors import BadInput

if TYPE_CHECKING:
    from trainables.footprint import Footprint

GIB = 2**30
CUDA_BYTES = GIB
"""Of each process on a device: CUDA's context, its libraries and their workspaces."""
USABLE = 0.92
"""Of what is left; the rest is for an allocator that cannot use every gap."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What there is."""

    count: int
    gib: float
    """Memory of each."""

    @property
    def usable(self) -> int:
        """Bytes of one that tensors can have."""
        return int(max(self.gib * GIB - CUDA_BYTES, 0) * USABLE)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a trial of an arm runs."""

    lane: str
    """``shared``, ``solo`` or ``gang``."""
    devices: int
    """Of one trial."""
    deepspeed: str
    """``off``, a ZeRO stage, or what else ``trainables.engine.start`` knows."""
    checkpointing: bool = False
    """Layers are computed twice, to keep less of them."""
    micro_batch: int
    """Questions at once on a device."""
    pieces: int
    """Of a batch, one after another on each device."""
    sharing: int
    """Trials on a device at once."""
    peak: int
    """Predicted bytes of a device, for one trial."""
    reason: str

    @property
    def engine(self) -> str:
        """In words."""
        if self.deepspeed.startswith("{"):
            return "DeepSpeed as configured"
        return "plain" if self.deepspeed == "off" else f"ZeRO-{self.deepspeed}"

    @property
    def shown(self) -> str:
        """In a line."""
        pieces = f" in {self.pieces} pieces" if self.pieces > 1 else ""
        devices = f"{self.devices} devices" if self.devices > 1 else "1 device"
        twice = ", layers computed twice" if self.checkpointing else ""
        sharing = f", which {self.sharing} trials share" if self.sharing > 1 else ""
        return (
            f"{self.lane}, {devices}{sharing}, {self.engine}, {self.micro_batch} questions at once"
            f"{pieces}{twice} ({self.reason})"
        )

    def plain(self) -> dict[str, str]:
        """For a trial's record."""
        return {
            "lane": self.lane,
            "devices": str(self.devices),
            "engine": self.engine,
            "micro_batch": str(self.micro_batch),
            "checkpointing": str(self.checkpointing),
        }


@dataclass(frozen=True, kw_only=True)
class Infeasible:
    """No way to run it here."""

    least: int
    """Bytes of a device that it would take even on all devices."""
    reason: str
    """With what would make it fit."""


DEEPSPEED_BUCKET = 500_000_000
"""Values that DeepSpeed exchanges at once at most (``trainables.engine.DEEPSPEED_BUCKET``)."""
GATHERED_LAYERS = 4
"""Under ZeRO-3, of the largest: the one that runs, the next, and what was asked for ahead."""
MOST_SHARING = 8
"""Trials on one device: more gain nothing."""

Predict = Callable[[int, int, bool], "Footprint"]
"""From the questions of a piece, the number of pieces and whether layers are computed twice to a
footprint on one device."""
Peak = Callable[["Footprint"], int]


def as_told(
    *, devices: int, deepspeed: str, batch_size: int, sharing: int, reason: str
) -> Placement:
    """Where trials run if nothing is known of memory: on so many devices, in whole batches.

    Raises:
        BadInput: they cannot share a batch evenly.
    """
    if devices < 1 or batch_size % devices:
        even = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        raise BadInput(
            f"--devices-per-trial {devices} cannot share batches of {batch_size} questions "
            f"evenly; give one of {', '.join(map(str, even))}"
        )
    return Placement(
        lane="gang" if devices > 1 else "shared" if sharing > 1 else "solo",
        devices=devices,
        deepspeed=deepspeed,
        micro_batch=batch_size // devices,
        pieces=1,
        sharing=sharing,
        peak=0,
        reason=reason,
    )


def smaller(placement: Placement) -> Placement | None:
    """The same with half as many questions at once; at one, with layers computed twice; or None."""
    if placement.micro_batch > 1:
        share = placement.micro_batch * placement.pieces
        micro_batch = -(-placement.micro_batch // 2)
        pieces = -(-share // micro_batch)
        return replace(placement, micro_batch=micro_batch, pieces=pieces, sharing=1, peak=0)
    return None if placement.checkpointing else replace(placement, checkpointing=True, peak=0)


def place(
    predict: Predict, batch_size: int, devices: Devices, correction: float = 1.0
) -> Placement | Infeasible:
    """The cheapest way that fits. ``correction``: what was measured to what was predicted."""
    alone = _on_one(predict, batch_size, devices, correction)
    return alone or _on_several(predict, batch_size, devices, correction)


# --- 1. One device --------------------------------------------------------------------------------


def _on_one(
    predict: Predict, batch_size: int, devices: Devices, correction: float
) -> Placement | None:
    def peak(footprint: Footprint) -> int:
        return int(footprint.peak * correction)

    whole = predict(batch_size, 1, False)
    if peak(whole) <= devices.usable:
        own = max(int(whole.own * correction), 1)
        sharing = min(1 + (devices.usable - peak(whole)) // own, MOST_SHARING)
        return Placement(
            lane="shared" if sharing > 1 else "solo",
            devices=1,
            deepspeed="off",
            micro_batch=batch_size,
            pieces=1,
            sharing=sharing,
            peak=peak(whole),
            reason=(
                f"{_gib(whole.weights)} of weights once and {_gib(own)} for each of {sharing}"
                if sharing > 1
                else f"{_gib(peak(whole))} of {_gib(devices.usable)}"
            ),
        )
    for twice in (False, True):
        found = _in_pieces(predict, batch_size, devices.usable, peak, twice)
        if found is None:
            continue
        micro_batch, pieces, footprint = found
        how = f"{pieces} pieces of {micro_batch}" if pieces > 1 else "a whole batch"
        return Placement(
            lane="solo",
            devices=1,
            deepspeed="off",
            checkpointing=twice,
            micro_batch=micro_batch,
            pieces=pieces,
            sharing=1,
            peak=peak(footprint),
            reason=(
                f"a whole batch would take {_gib(peak(whole))} of {_gib(devices.usable)}; {how} "
                + ("with layers computed twice " if twice else "")
                + f"take {_gib(peak(footprint))}"
            ),
        )
    return None


def _in_pieces(
    predict: Predict, share: int, usable: int, peak: Peak, twice: bool
) -> tuple[int, int, Footprint] | None:
    """The largest piece of a share that fits: questions, pieces, footprint."""
    pieces = 1
    while True:
        micro_batch = -(-share // pieces)
        found = predict(micro_batch, pieces, twice)
        if peak(found) <= usable:
            return micro_batch, pieces, found
        if pieces >= share:
            return None
        pieces = min(2 * pieces, share)


# --- 2. Several devices ---------------------------------------------------------------------------


def sharded(footprint: Footprint, stage: int, workers: int) -> int:
    """Peak bytes of a device of a gang, from the footprint of its share of a batch on one device.

    ZeRO-1 and above keep an fp32 copy of a worker's part of what is trained, and a buffer for the
    gradients on their way from the start of the backward pass; ZeRO-2 keeps gradients of that part
    alone; ZeRO-3 the weights too, but for the layers that are running or about to, and the base
    stays in the host's memory.
    """
    kept = sum(footprint.activations.values()) + sum(footprint.features.values())
    trained = footprint.trained
    owned = trained / workers if stage >= 1 else 0
    optimizer = footprint.optimizer / (workers if stage >= 1 else 1)
    buffer = min(trained, DEEPSPEED_BUCKET * 4) if stage >= 1 else trained
    shrink = workers if stage >= 2 else 1
    weights = footprint.weights + trained
    if stage == 3:
        weights = int(weights / workers) + GATHERED_LAYERS * footprint.layer
    state = weights + owned + optimizer
    backward = footprint.gradients / shrink + (buffer if stage >= 1 else 0)
    backward += kept + footprint.batch + footprint.workspace
    update = trained / shrink + buffer
    return int(state + max(backward, update))


def _on_several(
    predict: Predict, batch_size: int, devices: Devices, correction: float
) -> Placement | Infeasible:
    """The fewest workers that do it, by the lowest stage."""
    needs = predict(1, min(batch_size, 2), False)
    twice = predict(1, min(batch_size, 2), True)
    least, workers = int(min(needs.peak, twice.peak) * correction), 1
    for stage in (2, 3):
        for count in _worker_counts(batch_size, devices.count):

            def peak(footprint: Footprint, stage: int = stage, count: int = count) -> int:
                return int(sharded(footprint, stage, count) * correction)

            smallest = min(peak(needs), peak(twice))
            if smallest < least:
                least, workers = smallest, count
            if smallest > devices.usable:
                continue
            for checkpointing in (False, True):
                share = batch_size // count
                found = _in_pieces(predict, share, devices.usable, peak, checkpointing)
                if found is None:
                    continue
                micro_batch, pieces, footprint = found
                return Placement(
                    lane="gang",
                    devices=count,
                    deepspeed=str(stage),
                    checkpointing=checkpointing,
                    micro_batch=micro_batch,
                    pieces=pieces,
                    sharing=1,
                    peak=peak(footprint),
                    reason=(
                        f"alone it would take {_gib(twice.peak * correction)} of "
                        f"{_gib(devices.usable)} even one question at a time; on each of "
                        f"{count} devices {_gib(peak(footprint))}"
                    ),
                )
    return Infeasible(least=least, reason=_what_would_do(twice, least, workers, devices))


def _worker_counts(batch_size: int, devices: int) -> list[int]:
    """Numbers of workers that share a batch evenly."""
    return [n for n in range(2, devices + 1) if batch_size % n == 0]


def _what_would_do(needs: Footprint, least: int, workers: int, devices: Devices) -> str:
    """What does not fit, and by how much."""
    on = f"on {workers} devices by ZeRO-3" if workers > 1 else "on one device"
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
    return (
        f"it takes {_gib(least)} {on}, one question at a time, and there are "
        f"{_gib(devices.usable)}; most of it is {largest[1]} ({_gib(largest[0])}): {remedy}, or "
        f"devices of {device_gib:.0f} GiB"
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
