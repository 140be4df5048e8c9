"""The device on which this process computes: the accelerator that PyTorch finds, or the CPU.

All that differs between kinds of devices is asked here, so that no other module names one. Several
trials share a device of CUDA, and its memory is predicted. Any other accelerator (``mps`` of Apple,
``xpu`` of Intel) trains one trial at a time: none of them has been tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from trainables.devices.environment import leaves_accelerator
from trainables.devices.kinds import SHARED, WITHOUT_FLOAT64

GIB = 2**30


class Device(NamedTuple):
    """One device of this machine."""

    name: str
    gib: float
    """Memory in GiB; 0 where PyTorch does not know it."""


def kind() -> str:
    """Kind of the device on which this process computes, as PyTorch calls it: ``cpu``, ``cuda``,
    ``mps``, ``xpu``."""
    if not torch.accelerator.is_available():
        return "cpu"
    found = torch.accelerator.current_accelerator()
    name = "cpu" if found is None else found.type
    return "cpu" if name not in SHARED and leaves_accelerator() else name


def current() -> torch.device:
    """The device on which this process computes."""
    return torch.device(kind())


def accelerated() -> bool:
    """Whether this process computes on something else than a CPU."""
    return kind() != "cpu"


def accelerators() -> list[Device]:
    """All accelerators that this process sees; empty if it computes on a CPU."""
    return [_device(number) for number in range(torch.accelerator.device_count() * accelerated())]


def _device(number: int) -> Device:
    module = _module()
    if hasattr(module, "get_device_properties"):
        found = module.get_device_properties(number)
        return Device(found.name, found.total_memory / GIB)
    most = getattr(module, "recommended_max_memory", lambda: 0)()  # of MPS, which shares the host's
    return Device(kind(), most / GIB)


def multiplies_bf16_fast() -> bool:
    """Whether the device has instructions that multiply bf16. Where PyTorch does not say, it is
    taken to have none."""
    if not accelerated():
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return bool(fast)
    module = _module()
    known = hasattr(module, "is_bf16_supported")
    return known and bool(module.is_bf16_supported(including_emulation=False))


def pins(device: torch.device) -> bool:
    """Whether a device copies from pinned host memory by itself, while the host goes on."""
    return device.type in SHARED


def widest(device: torch.device) -> torch.dtype:
    """Most precise type in which a device adds up."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def choose(device: torch.device) -> None:
    """Make ``device`` the one that this process's allocations and streams are of, if there are
    several."""
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)


def synchronise() -> None:
    """Wait until the device has done all work that it was given."""
    if accelerated():
        torch.accelerator.synchronize()


@contextmanager
def generators_seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's global generators, the CPU's and the device's, and restore their states after
    the block."""
    devices = [torch.accelerator.current_device_index()] if accelerated() else []
    # Without devices, torch.manual_seed would write down for each kind of device who called it, in
    # case there will be one: up to a millisecond at each step of a trial.
    seed_all = torch.manual_seed if accelerated() else torch.default_generator.manual_seed
    # Torch 2.6 takes no None for the kind, although it does not matter where there are no devices.
    with torch.random.fork_rng(devices=devices, device_type=kind()):
        seed_all(seed)
        yield


def release_memory() -> None:
    """Give back device memory that PyTorch keeps in reserve."""
    if accelerated():
        _module().empty_cache()


def counts_memory() -> bool:
    """Whether PyTorch counts the memory that is allocated on the device, and its peak."""
    return accelerated() and hasattr(_module(), "max_memory_allocated")


def allocated_bytes() -> int:
    """Bytes of tensors on the device, where PyTorch counts them."""
    return int(_module().memory_allocated())


def peak_bytes() -> int:
    """Most bytes of tensors on the device since ``reset_peak``, where PyTorch counts them."""
    return int(_module().max_memory_allocated())


def reset_peak() -> None:
    """Begin a new peak, where PyTorch counts the device's memory."""
    _module().reset_peak_memory_stats()


def _module() -> Any:
    """PyTorch's module of this kind of device: ``torch.cuda``, ``torch.mps``, ``torch.xpu``."""
    return torch.get_device_module(kind())
