"""Bounds the caches of compiled kernels that PyTorch has on a CPU.

oneDNN compiles a kernel for each shape of a matrix product in bf16, and both oneDNN and PyTorch's
layer above it keep the last 1,024. Questions of other lengths and other LoRA ranks are other
shapes, so a process that trains one trial after another would grow by 0.1 GiB with each, to more
than twice its size. The shapes of a few batches are enough to compile hardly anything twice
(tests/benchmarks/RESULTS.md, "What grows with the number of trials").
"""

from __future__ import annotations

import os

CAPACITIES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "16"}
"""Environment variable of oneDNN, or of PyTorch's layer above it -> number of kernels to keep."""


def bound() -> None:
    """Bound the caches of this process, if it has computed nothing yet. Bounds that are in the
    environment stay."""
    for name, capacity in CAPACITIES.items():
        os.environ.setdefault(name, capacity)
