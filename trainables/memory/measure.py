"""Measures a trial's peak memory: of the device where PyTorch counts it (CUDA), else of the process
or its tensors."""

from __future__ import annotations

import contextlib
import gc
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from pathlib import Path

import torch

from trainables.devices import accelerator
from trainables.memory.freed_memory import return_freed

GIB = 2**30


def reset_peak() -> None:
    """Reset the peak, so that each trial of a process has a peak of its own."""
    if accelerator.counts_memory():
        accelerator.reset_peak()
        return
    # Linux: see "clear_refs" in proc(5). Elsewhere the peak is of the process's whole life.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_gib() -> float:
    """Peak GiB since ``reset_peak``: allocated on the device where PyTorch counts that, else
    resident in the process."""
    if accelerator.counts_memory():
        return accelerator.peak_bytes() / GIB
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / GIB
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


@dataclass(kw_only=True)
class MemoryGrowth:
    """Growth of allocated memory from the start of a block to its peak."""

    size: int = 0
    """Growth in bytes."""


@contextlib.contextmanager
def measure_growth() -> Iterator[MemoryGrowth]:
    """Measure how far PyTorch's allocated memory grows inside the block. The size is set when the
    block ends.

    On CUDA the allocator's own count is used. Elsewhere it is the profiler of the CPU, which slows
    the block down and does not see what is freed by a thread that the block did not start.
    """
    grown = MemoryGrowth()
    if accelerator.counts_memory():
        before = accelerator.allocated_bytes()
        accelerator.reset_peak()
        yield grown
        grown.size = accelerator.peak_bytes() - before
        return
    with torch.autograd.profiler.profile(profile_memory=True) as profiled:
        yield grown
    changes = [(e.start_ns(), e.nbytes()) for e in profiled.kineto_results.events() if e.nbytes()]
    grown.size = max(accumulate(size for _, size in sorted(changes, key=itemgetter(0))), default=0)


def release_cached() -> None:
    """Free unreferenced objects and the memory that allocators keep in reserve."""
    gc.collect()
    if accelerator.accelerated():
        accelerator.release_memory()
    return_freed()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    # Messages of RuntimeErrors: torch's on a CPU, and oneDNN's when it gets no memory.
    messages = ("can't allocate memory", "create a primitive")
    known = any(message in str(error) for message in messages)
    return known or isinstance(error, torch.OutOfMemoryError | MemoryError)
