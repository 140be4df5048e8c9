"""The hardware on which trials run: precision, number of CUDA devices and their memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Hardware of one machine, or what all machines of a study have in common."""

    precision: str
    """Precision in which trials compute, ``fp32`` or ``bf16``; never ``auto``."""
    devices: int
    """Number of CUDA devices."""
    device_gib: float
    """Memory of the smallest CUDA device in GiB; 0 if there is none."""

    @property
    def cuda(self) -> bool:
        """Whether there is a CUDA device."""
        return self.devices > 0

    @classmethod
    def here(cls, precision: str) -> Hardware:
        """Hardware of this machine; ``precision`` is that of the settings and may be ``auto``."""
        import torch

        from trainables.engine import start

        found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return cls(
            precision=start.resolve_precision(precision),
            devices=len(found),
            device_gib=min((device.total_memory / 2**30 for device in found), default=0.0),
        )

    @classmethod
    def joint(cls, machines: Sequence[Hardware]) -> Hardware:
        """Hardware of several machines together: all their devices, the memory of the smallest, and
        bf16 only if every machine computes in bf16."""
        fast = all(machine.precision == "bf16" for machine in machines)
        return cls(
            precision="bf16" if fast else "fp32",
            devices=sum(machine.devices for machine in machines),
            device_gib=min(machine.device_gib for machine in machines),
        )
