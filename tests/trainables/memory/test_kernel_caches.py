"""Kernels of many shapes, compiled by a process of its own: it must not grow with each shape."""

import os
import subprocess
import sys

import pytest
import torch

from trainables.memory.kernel_caches import CAPACITIES

PROGRAM = """
import sys, psutil, torch
from trainables.memory import kernel_caches
if sys.argv[1] == "bound":
    kernel_caches.bound()
torch.set_num_threads(1)
weight = torch.ones(256, 256, dtype=torch.bfloat16)
def multiply(shapes):
    for rows in shapes:
        torch.nn.functional.linear(torch.ones(rows, 256, dtype=torch.bfloat16), weight)
multiply(range(16, 316))
before = psutil.Process().memory_info().rss
multiply(range(316, 916))
print(psutil.Process().memory_info().rss - before)
"""


def grown(how: str) -> int:
    """Bytes by which the process grew. Another test may have bounded the caches of this process,
    whose environment a child has."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        check=True,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in CAPACITIES},
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bf16 on this processor"
)
def test_a_process_does_not_grow_with_each_shape() -> None:
    assert grown("bound") < grown("as they are") / 4
