"""Replaces a trial's tensors by fake ones, which have shapes and owners but no memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.memory.allocation_tracker import Allocation, Allocations


def fake_tensors(
    base: nn.Module, network: nn.Module, allocations: Allocations
) -> tuple[dict[Allocation, str], dict[str, nn.Parameter], int]:
    """Replace the tensors of ``network``, a weight-sharing copy of ``base``, by fake ones.

    Tensors that share memory share fake memory.

    Returns:
        The kind of each fake tensor's allocation, ``weights`` for the base's and ``trained`` for
        the trial's own; the parameters of ``network`` by name; and the number of bytes of the base
        that ``network`` does not use.
    """
    kinds: dict[Allocation, str] = {}
    fakes: dict[int, Tensor] = {}
    base_bytes = storage_bytes(base)
    seen: dict[int, tuple[object, nn.Parameter]] = {}

    def fake(tensor: Tensor) -> Tensor:
        key = _storage(tensor)
        if key not in fakes:
            fakes[key] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            kinds[allocations.find(fakes[key])] = "weights" if key in base_bytes else "trained"
        return fakes[key]

    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in seen:
                made = nn.Parameter(fake(parameter), requires_grad=parameter.requires_grad)
                # Keep the old parameter too, so that its id is not reused.
                seen[id(parameter)] = (parameter, made)
            module._parameters[name] = seen[id(parameter)][1]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)
    unused = sum(size for key, size in base_bytes.items() if key not in fakes)
    return kinds, dict(network.named_parameters()), unused


def storage_bytes(network: nn.Module) -> dict[int, int]:
    """Bytes of each storage of a network, by the storage's address."""
    tensors = [*network.parameters(), *network.buffers()]
    return {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}


def _storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
