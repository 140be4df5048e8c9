"""Stands in for bitsandbytes' own kernels for CUDA, of a process whose devices are simulated.

``site/sitecustomize.py`` gives this file to Python where it looks for the module
``bitsandbytes.backends.cuda.ops``. Each kernel is the CPU's, on the memory of the device: results
are allocated there, whatever the CPU's needs besides is not counted, and the host does not wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes._ops import register_kernel
from torch import Tensor
from torch.utils._pytree import tree_map_only

KERNELS = (
    *("quantize_blockwise", "dequantize_blockwise", "quantize_4bit", "dequantize_4bit"),
    *("optimizer_update_8bit_blockwise", "optimizer_update_32bit"),
)
"""Operations of bitsandbytes that the project calls."""


def _of_host(tensor: Tensor) -> Tensor:
    """The same memory as a tensor of the host."""
    return torch.ops.simulated_cuda.host(tensor) if tensor.is_cuda else tensor


def _kernel(name: str) -> Callable[..., Any]:
    operation: Any = getattr(torch.ops.bitsandbytes, name).default

    def kernel(*arguments: Any, **options: Any) -> Any:
        device = next(one.device for one in arguments if isinstance(one, Tensor))

        def on_device(found: Tensor) -> Tensor:
            made = torch.empty_like(found, device=device)
            _of_host(made).copy_(found)
            return made

        found = operation(*tree_map_only(Tensor, _of_host, arguments), **options)
        return tree_map_only(Tensor, on_device, found)

    return kernel


for _name in KERNELS:
    register_kernel(f"bitsandbytes::{_name}", "cuda")(_kernel(_name))
