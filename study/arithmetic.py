"""How the devices compute on which a study's trials run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Of one machine, or of all that a study has."""

    precision: str
    """What the settings' ``precision`` comes to: ``fp32`` or ``bf16``."""
    devices: int
    """CUDA devices."""
    device_gib: float
    """Memory of the smallest; 0 if there is none."""

    @property
    def cuda(self) -> bool:
        """There is a CUDA device."""
        return self.devices > 0

    @classmethod
    def here(cls, precision: str) -> Arithmetic:
        """Of this machine, for the settings' ``precision``."""
        import torch

        from trainables import engine

        found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return cls(
            precision=engine.resolve_precision(precision),
            devices=len(found),
            device_gib=min((device.total_memory / 2**30 for device in found), default=0.0),
        )

    @classmethod
    def joint(cls, machines: Sequence[Arithmetic]) -> Arithmetic:
        """Of several: what each of them can."""
        fast = all(machine.precision == "bf16" for machine in machines)
        return cls(
            precision="bf16" if fast else "fp32",
            devices=sum(machine.devices for machine in machines),
            device_gib=min(machine.device_gib for machine in machines),
        )
