"""A trial's network without memory: tensors that have shapes and owners, and nothing in them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.allocations import Allocation, Allocations


def without_memory(
    base: nn.Module, fork: nn.Module, allocations: Allocations
) -> tuple[dict[Allocation, str], dict[str, nn.Parameter], int]:
    """Give ``fork`` fake tensors for its own; those that shared memory still do.

    Returns:
        their allocations, of kind ``weights`` if they are the base's, else ``trained``; the fork's
        parameters by name; and how many bytes of the base have no place in the fork.
    """
    kinds: dict[Allocation, str] = {}
    fakes: dict[int, Tensor] = {}
    of_base = storages(base)
    seen: dict[int, tuple[object, nn.Parameter]] = {}

    def fake(tensor: Tensor) -> Tensor:
        key = _storage(tensor)
        if key not in fakes:
            fakes[key] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            kinds[allocations.of(fakes[key])] = "weights" if key in of_base else "trained"
        return fakes[key]

    for module in fork.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in seen:
                made = nn.Parameter(fake(parameter), requires_grad=parameter.requires_grad)
                seen[id(parameter)] = (parameter, made)  # kept, so that no other gets its id
            module._parameters[name] = seen[id(parameter)][1]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)
    elsewhere = sum(size for key, size in of_base.items() if key not in fakes)
    return kinds, dict(fork.named_parameters()), elsewhere


def storages(network: nn.Module) -> dict[int, int]:
    """The memory of a network: which, and how many bytes each."""
    tensors = [*network.parameters(), *network.buffers()]
    return {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}


def _storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
