"""How a trial runs: on a share of a device, on one, or on several; and what devices there are.

Which of them an arm gets by predicted memory is ``study.fitting``'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainables.errors import BadInput

GIB = 2**30
CUDA_BYTES = GIB
"""Of each process on a device: CUDA's context, its libraries and their workspaces."""
HOST_BYTES = 4 * GIB
"""Of each process beside a device: Python, PyTorch, CUDA's own, and the data."""
USABLE = 0.92
"""Of what is left; the rest is for an allocator that cannot use every gap."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What there is."""

    count: int
    gib: float
    """Memory of each."""
    host_gib: float = 0.0
    """Memory beside each that is not its own, to which a trial may be offloaded; none where the
    devices are processors."""

    @property
    def usable(self) -> int:
        """Bytes of one that tensors can have."""
        return int(max(self.gib * GIB - CUDA_BYTES, 0) * USABLE)

    @property
    def usable_host(self) -> int:
        """The same beside each."""
        return int(max(self.host_gib * GIB - HOST_BYTES, 0) * USABLE)


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
    evaluation_batch: int | None = None
    """Questions at once on a device where nothing is learnt from them; None: as a trial has it."""
    sharing: int
    """Trials on a device at once."""
    peak: int
    """Predicted bytes of a device, for one trial."""
    host: int = 0
    """Predicted bytes beside each of its devices, where something is offloaded."""
    reason: str

    @property
    def engine(self) -> str:
        """In words."""
        if self.deepspeed.startswith("{"):
            return "DeepSpeed as configured"
        if self.deepspeed == "off":
            return "plain"
        stage, _, offload = self.deepspeed.partition("-")
        return f"ZeRO-{stage}" + (" with offload" if offload else "")

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


def smaller(placement: Placement, *, trains: bool = True) -> Placement | None:
    """The same with half as many questions at once; at one, where it ``trains``, with layers
    computed twice; or None."""
    if placement.micro_batch > 1:
        share = placement.micro_batch * placement.pieces
        micro_batch = -(-placement.micro_batch // 2)
        return replace(
            placement,
            micro_batch=micro_batch,
            pieces=-(-share // micro_batch),
            # As much as is learnt from at once must do for what is not.
            evaluation_batch=min(placement.evaluation_batch or micro_batch, micro_batch),
            sharing=1,
            peak=0,
        )
    if placement.checkpointing or not trains:
        return None
    return replace(placement, checkpointing=True, peak=0)
