"""Peak memory of a trial, in GiB: of the device on CUDA, of the process on a CPU."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch

GIB = 2**30


def reset_peak() -> None:
    """Start measuring anew, so that a process that runs many trials has a peak for each."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    # Linux: see "clear_refs" in proc(5). Elsewhere the peak is of the process's whole life.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_gib() -> float:
    """The peak since ``reset_peak``: allocated on the CUDA device, else resident in the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / GIB
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
