"""Attention whose heads share keys."""

from __future__ import annotations

from torch import nn


def share_keys(network: nn.Module) -> bool:
    """Whether heads share keys in a network. In fp32 PyTorch has no fused kernel for that on CUDA:
    scores are kept there, which memory prediction does not count (three measured steps do)."""
    return any(getattr(module, "num_key_value_groups", 1) > 1 for module in network.modules())
