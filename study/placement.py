"""Where each arm runs: on a share of a device, on one, or on several; known before anything starts.

What a trial needs is predicted (``trainables.footprint``); what there is, is the cluster's. The
first of these that fits is taken, since each costs more time than the one before:

1. one device, whole batches; as many trials on it as fit beside the one resident base,
2. one device, each batch in pieces whose gradients are added up,
3. several devices, which share a batch and, by DeepSpeed's ZeRO-2, the optimizer's state,
4. the same by ZeRO-3, which shares the weights as well.

The batch of an optimizer step is the same in all of them, and so is what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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

Predict = Callable[[int, int], "Footprint"]
"""From the questions of a piece and the number of pieces to a footprint on one device."""


def place(predict: Predict, batch_size: int, devices: Devices) -> Placement | Infeasible:
    """The cheapest way that fits."""
    alone = _on_one(predict, batch_size, devices)
    return alone or _on_several(predict, batch_size, devices)


def as_told(
    *, devices: int, deepspeed: str, batch_size: int, sharing: int, reason: str
) -> Placement:
    """Where trials run if nothing is known of memory: on so many devices, in whole batches.

    Raises:
        BadInput: they cannot share a batch evenly.
    """
    if batch_size % devices:
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


# --- 1. One device --------------------------------------------------------------------------------


def _on_one(predict: Predict, batch_size: int, devices: Devices) -> Placement | None:
    whole = predict(batch_size, 1)
    if whole.peak <= devices.usable:
        sharing = 1 + (devices.usable - whole.peak) // max(whole.own, 1)
        return Placement(
            lane="shared" if sharing > 1 else "solo",
            devices=1,
            deepspeed="off",
            micro_batch=batch_size,
            pieces=1,
            sharing=sharing,
            peak=whole.peak,
            reason=(
                f"{_gib(whole.weights)} of weights once and {_gib(whole.own)} for each of {sharing}"
                if sharing > 1
                else f"{_gib(whole.peak)} of {_gib(devices.usable)}"
            ),
        )
    found = _in_pieces(predict, batch_size, devices.usable)
    if found is None:
        return None
    micro_batch, pieces, footprint = found
    return Placement(
        lane="solo",
        devices=1,
        deepspeed="off",
        micro_batch=micro_batch,
        pieces=pieces,
        sharing=1,
        peak=footprint.peak,
        reason=(
            f"a whole batch would take {_gib(whole.peak)} of {_gib(devices.usable)}; "
            f"{pieces} pieces of {micro_batch} take {_gib(footprint.peak)}"
        ),
    )


def _in_pieces(
    predict: Predict, share: int, usable: int, peak: Callable[[Footprint], int] | None = None
) -> tuple[int, int, Footprint] | None:
    """The largest piece of a share that fits: questions, pieces, footprint."""
    peak = peak or (lambda footprint: footprint.peak)
    pieces = 1
    while pieces < share:
        pieces = min(2 * pieces, share)
        micro_batch = -(-share // pieces)
        found = predict(micro_batch, pieces)
        if peak(found) <= usable:
            return micro_batch, pieces, found
    return None


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


def _on_several(predict: Predict, batch_size: int, devices: Devices) -> Placement | Infeasible:
    """The fewest workers that do it, by the lowest stage."""
    needs = predict(1, min(batch_size, 2))
    least, workers = needs.peak, 1
    for stage in (2, 3):
        for count in _worker_counts(batch_size, devices.count):
            peak = partial(sharded, stage=stage, workers=count)
            smallest = peak(needs)
            if smallest < least:
                least, workers = smallest, count
            if smallest > devices.usable:
                continue
            share = batch_size // count
            whole = predict(share, 1)
            fits = (share, 1, whole) if peak(whole) <= devices.usable else None
            found = fits or _in_pieces(predict, share, devices.usable, peak)
            if found is None:
                continue
            micro_batch, pieces, footprint = found
            return Placement(
                lane="gang",
                devices=count,
                deepspeed=str(stage),
                micro_batch=micro_batch,
                pieces=pieces,
                sharing=1,
                peak=peak(footprint),
                reason=(
                    f"alone it would take {_gib(needs.peak)} of {_gib(devices.usable)} even one "
                    f"question at a time; on each of {count} devices {_gib(peak(footprint))}"
                ),
            )
    return Infeasible(least=least, reason=_what_would_do(needs, least, workers, devices))


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
