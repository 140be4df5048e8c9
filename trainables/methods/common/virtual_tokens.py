"""Virtual tokens: trained keys and values that self-attention sees before those of real tokens.

They serve ``prefix`` and ``ptv2``. Every query of a slot may attend to them, whatever its causal or
padding mask. They have no queries, stay out of cross-attention and take no position: they are added
after learned position embeddings and after the rotation of RoPE, so real tokens keep the
positions with which they were pretrained.

An attention module that takes a key-value cache gets them through the cache, which returns them
before its own keys and values. The real cache never holds them. Its length, and with it positions
and masks, are the same as without them, and generating token by token agrees with one pass over the
whole text. An attention module without a cache (an image encoder's, where nothing is masked) gets
them as rows before its input; the keys and values of these rows are replaced, and their outputs
dropped.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot


def add(slot: Slot, *, tokens: int, projected: bool) -> list[str]:
    """Put ``tokens`` virtual tokens before every self-attention of ``slot``.

    If ``projected``, an MLP as wide as a key, shared by all layers, computes them.

    Returns:
        names of the trained parameters.

    Raises:
        BadInput: the slot has no self-attention.
    """
    attentions = select.modules(slot, ("self_attention",))
    virtual = VirtualTokens(slot, attentions, tokens, projected)
    slot.module.add_module("virtual_tokens", virtual)
    slot.module.register_forward_pre_hook(virtual.renew)
    for layer, name in enumerate(attentions):
        attention = slot.module.get_submodule(name)
        if "past_key_values" in inspect.signature(type(attention).forward).parameters:
            attention.register_forward_pre_hook(
                partial(_through_the_cache, virtual, layer), with_kwargs=True
            )
            continue
        attention.register_forward_pre_hook(partial(_with_rows, virtual), with_kwargs=True)
        attention.register_forward_hook(partial(_without_rows, virtual))
        for projection, parts in _projections(slot, name):
            projection.register_forward_hook(partial(_fill_rows, virtual, layer, parts))
    return select.adapters(slot)


def is_hook(hook: Any) -> bool:
    """Whether ``hook`` is one that ``add`` registers."""
    return bool(getattr(hook, "func", hook).__module__ == __name__)


class VirtualTokens(nn.Module):
    """Keys and values of N virtual tokens for every layer of a slot, made by peft's encoder."""

    def __init__(self, slot: Slot, attentions: list[str], tokens: int, projected: bool) -> None:
        from peft import PrefixEncoder, PrefixTuningConfig

        super().__init__()
        self.tokens, self.layers = tokens, len(attentions)
        projection, parts = _projections(slot, attentions[0])[0]
        self.width = projection.get_parameter("weight").shape[0] // len(parts)
        config = PrefixTuningConfig(
            num_virtual_tokens=tokens,
            num_layers=self.layers,
            token_dim=self.width,
            encoder_hidden_size=self.width,
            prefix_projection=projected,
        )
        encoder = PrefixEncoder(config)
        # Initialised on the CPU, so that a seed gives the same values on every device.
        self.encoder = encoder.to(projection.get_parameter("weight").device)
        self.now_LKNW: Tensor | None = None
        """Keys and values in the running forward pass: layers, keys and values, tokens, width."""

    def renew(self, *_: Any) -> None:
        """Compute the keys and values of all layers, once in a forward pass of the slot."""
        places_N = torch.arange(self.tokens, device=next(self.parameters()).device)
        encoded_NLKW = self.encoder(places_N).view(self.tokens, self.layers, 2, self.width)
        self.now_LKNW = encoded_NLKW.permute(1, 2, 0, 3)

    def for_layer(self, layer: int) -> Tensor:
        """Keys and values of ``layer``; shape (2, N, W)."""
        assert self.now_LKNW is not None, "the slot's own forward was not called"
        return self.now_LKNW[layer]


class _Ahead:
    """A cache as an attention module sees it: virtual keys and values come before all others."""

    def __init__(self, virtual_KNW: Tensor, cache: Any) -> None:
        self.virtual_KNW, self.cache = virtual_KNW, cache

    def update(
        self, keys_BHTd: Tensor, values_BHTd: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return all keys and values so far: virtual ones, those in the cache and new ones."""
        if self.cache is not None:
            keys_BHTd, values_BHTd = self.cache.update(keys_BHTd, values_BHTd, *args, **kwargs)
        keys_NW, values_NW = self.virtual_KNW
        return _ahead(keys_NW, keys_BHTd), _ahead(values_NW, values_BHTd)


def _ahead(virtual_NW: Tensor, real_BHTd: Tensor) -> Tensor:
    """Put virtual keys or values before real ones; shape (B, H, N + T, d)."""
    batch, heads, _, width = real_BHTd.shape
    virtual_HNd = virtual_NW.view(-1, heads, width).transpose(0, 1).to(real_BHTd.dtype)
    return torch.cat((virtual_HNd.expand(batch, -1, -1, -1), real_BHTd), dim=2)


def _through_the_cache(
    virtual: VirtualTokens,
    layer: int,
    attention: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before an attention module with a cache: extend cache and mask by the virtual tokens."""
    cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
    cache = getattr(cache, "self_attention_cache", cache)  # if it is a pair, self and cross
    queries = (args[0] if args else kwargs["hidden_states"]).shape[1]
    if mask is None and queries > 1 and getattr(attention, "is_causal", False):
        # The kernel's own causal mask would take the virtual tokens for the first real ones.
        past = cache.get_seq_length(attention.layer_idx) if cache is not None else 0
        device = next(attention.parameters()).device
        mask = torch.ones(1, 1, queries, past + queries, dtype=torch.bool, device=device).tril(past)
    if mask is not None:
        seen = True if mask.dtype == torch.bool else 0.0
        mask = nn.functional.pad(mask, (virtual.tokens, 0), value=seen)
    ahead = _Ahead(virtual.for_layer(layer), cache)
    return args, {**kwargs, "past_key_values": ahead, "attention_mask": mask}


def _with_rows(
    virtual: VirtualTokens, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before an attention module without a cache: put N rows of zeros before its input."""
    hidden_BTD = args[0] if args else kwargs["hidden_states"]
    rows_BTD = nn.functional.pad(hidden_BTD, (0, 0, virtual.tokens, 0))
    if args:
        return (rows_BTD, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": rows_BTD}


def _fill_rows(
    virtual: VirtualTokens,
    layer: int,
    parts: tuple[int | None, ...],
    _: nn.Module,
    __: Any,
    output_BTW: Tensor,
) -> Tensor:
    """After a projection: replace the first N rows of its output by virtual keys and values."""
    keys_values = virtual.for_layer(layer)
    nobody = torch.zeros_like(keys_values[0])
    rows_NW = torch.cat([nobody if part is None else keys_values[part] for part in parts], dim=-1)
    rows_BNW = rows_NW.to(output_BTW.dtype).expand(len(output_BTW), -1, -1)
    return torch.cat((rows_BNW, output_BTW[:, virtual.tokens :]), dim=1)


def _without_rows(
    virtual: VirtualTokens, _: nn.Module, __: Any, output: Tensor | tuple[Tensor, ...]
) -> Tensor | tuple[Tensor, ...]:
    """After an attention module without a cache: drop the first N rows of its output."""
    if isinstance(output, Tensor):
        return output[:, virtual.tokens :]
    return output[0][:, virtual.tokens :], *output[1:]


def _projections(slot: Slot, attention: str) -> list[tuple[nn.Module, tuple[int | None, ...]]]:
    """Projections that compute the keys (0) and values (1) of ``attention``.

    Each comes with the parts of its output, in order; a query is None.
    """
    kinds: dict[str, tuple[int | None, ...]] = {"qkv": (None, 0, 1), "key": (0,), "value": (1,)}
    return [
        (slot.module.get_submodule(name), parts)
        for role, parts in kinds.items()
        for name in slot.roles.get(role, ())
        if name.startswith(f"{attention}.")
    ]
