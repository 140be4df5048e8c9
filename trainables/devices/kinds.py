"""Kinds of devices, as PyTorch calls them, and what is known of each. What asks PyTorch itself is
in ``trainables.devices.accelerator``; this module imports nothing."""

from __future__ import annotations

SHARED = ("cuda",)
"""Kinds of accelerators that several trials share, and whose memory is predicted. AMD's ROCm is
``cuda`` to PyTorch."""
BACKENDS = {"cuda": "nccl", "xpu": "xccl"}
"""Kind of device -> name of the process groups in which such devices exchange tensors."""
WITHOUT_FLOAT64 = ("mps",)
"""Kinds of devices that cannot add up in float64."""
VARIABLE = "STUDY_DEVICE"
"""Environment variable which, if it is ``cpu``, leaves an accelerator alone that is not one of
``SHARED``."""


def backend(kind: str) -> str:
    """Name of the process groups in which devices of a kind exchange tensors."""
    return BACKENDS.get(kind, "gloo")


def plural(kind: str) -> str:
    """What several devices of a kind are called."""
    return "processors" if kind == "cpu" else f"{kind.upper()} devices"
