"""Activation checkpointing: layers keep only the input of a forward pass and recompute the rest.

A step takes about a third more time, most of the activations need no memory, and losses do not
change.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from trainables.errors import BadInput


def checkpoint_layers(network: nn.Module) -> int:
    """Turn on activation checkpointing for the layers of a network's stacks; returns their number.

    Raises:
        BadInput: no layer supports it.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [m for m in network.modules() if isinstance(m, GradientCheckpointingLayer)]
    # Transformers before 5.23 computes a layer's hooks twice too.
    with_hooks = "__call__" in vars(GradientCheckpointingLayer)
    again = checkpoint_forward if with_hooks else partial(checkpoint, use_reentrant=False)
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = again  # type: ignore[assignment]  # a method there
    if not layers:
        raise BadInput("no layer of this model can be computed twice to save memory")
    return len(layers)


def checkpoint_forward(call: partial[Any], *args: Any) -> Any:
    """Call a layer so that its forward is computed twice, and its hooks run once.

    The hooks of method ``prompt`` pass rows on from layer to layer, so they may not run again in
    the backward pass, in which layers come in another order.

    Args:
        call: the layer's call, hooks included, and its named arguments.
        *args: its other arguments.
    """
    layer: nn.Module = call.func.__self__  # type: ignore[attr-defined]  # a bound method
    forward = layer.forward

    def twice(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False)

    layer.forward = twice
    try:
        return call(*args)
    finally:
        del layer.forward
