"""The machine that is measured, and what a measurement of it is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from trainables.devices import accelerator
from trainables.engine import start

PACKAGES = (
    *("torch", "transformers", "peft", "safetensors", "numpy", "pillow"),
    *("bitsandbytes", "deepspeed", "ray"),
)
"""Packages whose versions are told. The last three need not be there."""
SIMULATED = "SIMULATED_CUDA"
"""Environment variable that is set where the device is simulated (``tests/simulated_cuda``)."""

Result = Mapping[str, Any]
"""What a measurement found: names of numbers and texts."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The device, and how large what runs there may be."""

    device: torch.device
    name: str
    """Name of the device."""
    gib: float
    """Memory of the device in GiB; 0 for a CPU."""
    precision: str
    """``bf16`` where the device multiplies it fast, else ``fp32``."""
    small: bool
    """Whether small shapes are measured, as for a CPU and for a simulated device."""

    @classmethod
    def here(cls, *, small: bool) -> Machine:
        """The device on which this process computes. Small shapes are measured if it is no real
        accelerator, or ``small``."""
        found = accelerator.accelerators()
        name, gib = found[0] if found else (f"CPU, {torch.get_num_threads()} threads", 0.0)
        return cls(
            device=accelerator.current(),
            name=name,
            gib=gib,
            precision=start.resolve_precision("auto"),
            small=small or not found or SIMULATED in os.environ,
        )

    @property
    def label(self) -> str:
        """What decides whether results of another run are of this machine too."""
        size = "small shapes" if self.small else "full shapes"
        return f"{self.name}, torch {torch.__version__}, {size}"


def versions() -> dict[str, str]:
    """Versions of Python, packages, and what PyTorch was built for."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    built: Any = torch.version
    for kind in ("cuda", "hip", "xpu"):
        if version := getattr(built, kind, None):
            found[kind] = str(version)
    return found


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement of a part."""

    name: str
    """Name, unique in its part."""
    take: Callable[[], Result]
    """Measures, and returns what was found."""
    needs: tuple[str, ...] = ()
    """Packages without which it is left out."""

    @property
    def lacks(self) -> str:
        """The first of ``needs`` that is not there; empty if all are."""
        return next((name for name in self.needs if not importlib.util.find_spec(name)), "")


class Verdict(NamedTuple):
    """What all measurements of a part that were taken say of its goal."""

    met: bool | None
    """Whether the goal is met; None if too little was measured to say."""
    text: str
    """The numbers, in one line."""

    @property
    def shown(self) -> str:
        """The verdict in one line."""
        return (
            f"goal {'open' if self.met is None else 'met' if self.met else 'not met'}: {self.text}"
        )


NOTHING = Verdict(None, "nothing was compared")


class Part(Protocol):
    """A module that measures one part."""

    TITLE: str
    GOAL: str
    """What should be found, in one line."""
    WEIGHT: int
    """Share of the time, beside the weights of the other parts."""

    def measurements(self, machine: Machine) -> list[Measurement]:
        """All measurements of the part."""

    def line(self, result: Result) -> str:
        """What a measurement found, in one line."""

    def verdict(self, results: Mapping[str, Result]) -> Verdict:
        """What all measurements that were taken say of the goal."""
