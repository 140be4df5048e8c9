"""Placement: devices, engine and batch pieces of an arm's trials; and the memory of devices.

Which placement an arm gets by predicted memory is decided in ``study.planning.device_fit``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from study.config.deployment import CUDA_GIB
from trainables.errors import BadInput

GIB = 2**30
CUDA_BYTES = CUDA_GIB * GIB
"""Bytes of GPU memory that each process takes for CUDA itself."""
HOST_BYTES = 4 * GIB
"""Bytes of host memory that each process beside a device takes: Python, PyTorch, CUDA's own, and
the data."""
USABLE = 0.92
"""Share of the remaining memory that tensors can have; the rest is for an allocator that cannot use
every gap."""


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Number of devices, and the memory of each."""

    count: int
    gib: float
    """Memory of each device in GiB."""
    host_gib: float = 0.0
    """Host memory in GiB beside each device, to which a trial may be offloaded; none where the
    devices are processors."""

    @property
    def usable(self) -> int:
        """Bytes of each device that tensors can have."""
        return int(max(self.gib * GIB - CUDA_BYTES, 0) * USABLE)

    @property
    def usable_host(self) -> int:
        """Bytes of host memory beside each device that tensors can have."""
        return int(max(self.host_gib * GIB - HOST_BYTES, 0) * USABLE)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Placement: devices, engine and batch pieces of an arm's trials."""

    lane: str
    """Way in which a trial gets its compute: ``shared`` (a device together with other trials),
    ``solo`` (one device) or ``gang`` (several devices)."""
    devices: int
    """Number of devices of one trial."""
    deepspeed: str
    """Kind of engine: ``off``, a ZeRO stage, or another that
    ``trainables.engine.start.start_engine`` knows."""
    activation_checkpointing: bool = False
    """Whether layers are computed twice, to keep less of them. Records and the plan for programs
    call it ``checkpointing``."""
    micro_batch: int
    """Questions at once on a device."""
    pieces: int
    """Pieces of a batch, one after another on each device."""
    evaluation_batch: int | None = None
    """Questions at once on a device when the trial is evaluated; None: the trial's default."""
    sharing: int
    """Trials at once on a device."""
    peak: int
    """Predicted bytes of a device for one trial."""
    host: int = 0
    """Predicted bytes of host memory beside each of its devices, where something is offloaded."""
    reason: str

    @property
    def engine(self) -> str:
        """The engine in words."""
        if self.deepspeed.startswith("{"):
            return "DeepSpeed as configured"
        if self.deepspeed == "off":
            return "plain"
        stage, _, offload = self.deepspeed.partition("-")
        return f"ZeRO-{stage}" + (" with offload" if offload else "")

    @property
    def shown(self) -> str:
        """The placement in one line."""
        pieces = f" in {self.pieces} pieces" if self.pieces > 1 else ""
        devices = f"{self.devices} devices" if self.devices > 1 else "1 device"
        twice = ", layers computed twice" if self.activation_checkpointing else ""
        sharing = f", which {self.sharing} trials share" if self.sharing > 1 else ""
        return (
            f"{self.lane}, {devices}{sharing}, {self.engine}, {self.micro_batch} questions at once"
            f"{pieces}{twice} ({self.reason})"
        )

    def plain(self) -> dict[str, str]:
        """Values for a trial's record."""
        return {
            "lane": self.lane,
            "devices": str(self.devices),
            "engine": self.engine,
            "micro_batch": str(self.micro_batch),
            "checkpointing": str(self.activation_checkpointing),
        }


@dataclass(frozen=True, kw_only=True)
class Infeasible:
    """An arm's failure to fit on any device."""

    least: int
    """Least bytes of a device that it would take, even on all devices."""
    reason: str
    """Reason why it does not fit, with what would make it fit."""


def lane(devices: int, sharing: int) -> str:
    """Lane of a trial that has ``devices`` devices, or shares one with others, ``sharing`` in
    all."""
    return "gang" if devices > 1 else "shared" if sharing > 1 else "solo"


def uniform_placement(
    *, devices: int, deepspeed: str, batch_size: int, sharing: int, reason: str
) -> Placement:
    """Placement of trials if nothing is known of memory: on ``devices`` devices, in whole batches.

    Raises:
        BadInput: the devices cannot share a batch evenly.
    """
    if devices < 1 or batch_size % devices:
        even = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        raise BadInput(
            f"--devices-per-trial {devices} cannot share batches of {batch_size} questions "
            f"evenly; give one of {', '.join(map(str, even))}"
        )
    return Placement(
        lane=lane(devices, sharing),
        devices=devices,
        deepspeed=deepspeed,
        micro_batch=batch_size // devices,
        pieces=1,
        sharing=sharing,
        peak=0,
        reason=reason,
    )


def halved(
    placement: Placement, *, trains: bool = True, share: int | None = None
) -> Placement | None:
    """The placement with half as many questions at once. If it has one only and ``trains``, the
    placement with layers computed twice. None if it cannot take less.

    ``share`` is the number of questions that each device had of the batch that did not fit, which
    may be smaller than those that the placement has room for.
    """
    at_once = min(placement.micro_batch, share or placement.micro_batch)
    if at_once > 1:
        whole = placement.micro_batch * placement.pieces
        micro_batch = -(-at_once // 2)
        return replace(
            placement,
            micro_batch=micro_batch,
            pieces=-(-whole // micro_batch),
            # What fits at once in training must do in evaluation too.
            evaluation_batch=min(placement.evaluation_batch or micro_batch, micro_batch),
            sharing=1,
            peak=0,
        )
    if placement.activation_checkpointing or not trains:
        return None
    return replace(placement, activation_checkpointing=True, peak=0)
