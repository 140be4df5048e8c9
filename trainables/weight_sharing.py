"""Makes a network for each trial that shares the tensors of the resident base.

Copying a whole model for each trial would cost its memory and its load time again. A weight-sharing
copy has module objects of its own, but its parameters and buffers lie in the base's memory. What a
trial trains is replaced by a copy in fp32 (``own_trained_parameters``), so the base never changes
and trials start and end in milliseconds.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Collection

import torch
from torch import nn


def share_weights(network: nn.Module) -> nn.Module:
    """Copy the modules of ``network`` and share its memory; nothing in the copy requires grad.

    The parameters are new objects on the base's memory. So the base stays as it is when
    ``requires_grad`` of one is set, or when DeepSpeed's ZeRO-3 puts other memory under it.
    """
    shared: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
        for parameter in network.parameters()
    }
    shared |= {id(buffer): buffer for buffer in network.buffers()}
    configs = [module.config for module in network.modules() if hasattr(module, "config")]
    shared |= {id(config): config for config in configs}
    # Most of a network's objects are the empty dictionaries in which modules keep their hooks. New
    # ones made here take half of the time.
    shared |= {
        id(value): type(value)()
        for module in network.modules()
        for value in vars(module).values()
        if not value and type(value) in (dict, OrderedDict, set)
    }
    return copy.deepcopy(network, shared)


def own_trained_parameters(network: nn.Module, names: Collection[str]) -> dict[str, nn.Parameter]:
    """Replace the named parameters of ``network`` by trainable fp32 copies.

    They are fp32 whatever the base is in: a bf16 weight near 1 does not move under steps below
    2^-9. Other vectors of the same layers become fp32 too, since LayerNorm on a CPU does not accept
    mixed types. A parameter that several modules share (tied embeddings) stays shared.

    Returns:
        The new parameters by name, in the network's order.
    """
    wanted = set(names)
    copies: dict[int, nn.Parameter] = {}
    owned: dict[str, nn.Parameter] = {}
    for name, parameter in network.named_parameters():
        if name in wanted:
            copied = nn.Parameter(parameter.detach().to(torch.float32, copy=True))
            copies[id(parameter)] = owned[name] = copied
    for module in network.modules():
        direct = {name: old for name, old in module._parameters.items() if old is not None}
        if not any(id(old) in copies for old in direct.values()):
            continue
        for attribute, old in direct.items():
            if id(old) in copies:
                module._parameters[attribute] = copies[id(old)]
            elif old.ndim == 1 and old.dtype != torch.float32:
                module._parameters[attribute] = nn.Parameter(old.float(), requires_grad=False)
    return owned
