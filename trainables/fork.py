"""A trial's own network on the shared tensors of the resident base.

Copying a model for each trial would cost its memory and its load time again. A fork copies only the
module objects: every parameter and buffer is the base's own tensor. What a trial trains is replaced
by a copy in fp32 (``own``), so the base never changes and trials may come and go in milliseconds.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import nn


def fork(network: nn.Module) -> nn.Module:
    """The modules of ``network`` copied, its memory shared; nothing in the copy requires grad.

    The parameters are objects of their own on the base's memory, so whoever flips ``requires_grad``
    of one, or puts other memory under it as DeepSpeed's ZeRO-3 does, leaves the base as it was.
    """
    shared: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
        for parameter in network.parameters()
    }
    shared |= {id(buffer): buffer for buffer in network.buffers()}
    configs = [module.config for module in network.modules() if hasattr(module, "config")]
    shared |= {id(config): config for config in configs}
    return copy.deepcopy(network, shared)


def own(network: nn.Module, names: Collection[str]) -> dict[str, nn.Parameter]:
    """Give ``network`` its own trainable fp32 copies of the named parameters.

    fp32 whatever the base is in: a bf16 weight near 1 does not move under steps below 2^-9. The
    vectors beside it in its layer become fp32 too, since LayerNorm takes no mixture on a CPU. A
    parameter that several modules share (tied embeddings) stays shared.

    Returns:
        name -> the new parameter, in the network's order.
    """
    wanted = set(names)
    copies: dict[int, nn.Parameter] = {}
    owned: dict[str, nn.Parameter] = {}
    for name, parameter in network.named_parameters():
        if name in wanted:
            copied = nn.Parameter(parameter.detach().to(torch.float32, copy=True))
            copies[id(parameter)] = owned[name] = copied
    for module in network.modules():
        here = {name: old for name, old in module._parameters.items() if old is not None}
        if not any(id(old) in copies for old in here.values()):
            continue
        for attribute, old in here.items():
            if id(old) in copies:
                module._parameters[attribute] = copies[id(old)]
            elif old.ndim == 1 and old.dtype != torch.float32:
                module._parameters[attribute] = nn.Parameter(old.float(), requires_grad=False)
    return owned
