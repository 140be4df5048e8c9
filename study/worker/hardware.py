"""The hardware on which trials run: precision, kind and number of devices, and their memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.devices.kinds import SHARED


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Hardware of one machine, or what all machines of a study have in common."""

    precision: str
    """Precision in which trials compute, ``fp32`` or ``bf16``; never ``auto``."""
    devices: int
    """Number of accelerators."""
    device_gib: float
    """Memory of the smallest accelerator in GiB; 0 if there is none, or it is not known."""
    kind: str
    """Kind of the devices, as PyTorch calls it: ``cuda``, ``mps``, ``xpu``; ``cpu`` if there is no
    accelerator."""
    names: tuple[str, ...] = ()
    """Names of the accelerators' models, or of the processors' where there are none."""

    @property
    def shared(self) -> bool:
        """Whether there is an accelerator that trials share, whose memory is predicted."""
        return self.devices > 0 and self.kind in SHARED

    @property
    def untried(self) -> str:
        """Kind of an accelerator on which no trial has run yet, and which therefore trains one at a
        time: ``mps`` or ``xpu``; empty if there is none."""
        return self.kind if self.devices > 0 and not self.shared else ""

    @classmethod
    def here(cls, precision: str) -> Hardware:
        """Hardware of this machine; ``precision`` is that of the settings and may be ``auto``."""
        from trainables.devices import accelerator
        from trainables.engine import start

        found = accelerator.accelerators()
        return cls(
            precision=start.resolve_precision(precision),
            devices=len(found),
            device_gib=min((device.gib for device in found), default=0.0),
            kind=accelerator.kind(),
            names=tuple(sorted({device.name for device in found})) or (_processor(),),
        )

    @classmethod
    def joint(cls, machines: Sequence[Hardware]) -> Hardware:
        """Hardware of several machines together: all their devices, the memory of the smallest, and
        bf16 only if every machine computes in bf16. If one is ``untried``, all are."""
        fast = all(machine.precision == "bf16" for machine in machines)
        return cls(
            precision="bf16" if fast else "fp32",
            devices=sum(machine.devices for machine in machines),
            device_gib=min(machine.device_gib for machine in machines),
            kind=next((m.kind for m in machines if m.untried), machines[0].kind),
            names=tuple(sorted({name for machine in machines for name in machine.names})),
        )


def _processor() -> str:
    """Name of this machine's processor, as Linux gives it, with the number of its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.machine())}, {os.cpu_count()} cores"
