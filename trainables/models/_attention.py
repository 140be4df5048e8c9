"""BLIP's attention with less arithmetic and memory than in transformers; the same to rounding.

transformers 5.23 computes it by plain operations: of a 480-pixel image each head of each layer
keeps 901 x 901 probabilities, most of the memory that training the image encoder takes. PyTorch's
own kernels keep none.

A question has few tokens and an image many, so most of a text stack's arithmetic is to make keys
and values of the image's tokens, for each question and layer anew. None need be made
(``trainables.heads``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import EncoderDecoderCache
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from trainables import ranks
from trainables.heads import affine, of_means, rows_of, turned

QUERIES = 20
"""Taken for granted where several workers train a trial. They have to decide alike, whatever their
questions, or gradients would be ready in another order on each, and DeepSpeed adds them up as they
come."""


def fuse(network: nn.Module) -> None:
    """Have a network's attention computed so; its layers keep their names and weights."""
    for module in network.modules():
        for kind in (ImageAttention, TextAttention):
            if type(module) is kind.__base__:
                module.__class__ = kind


class ImageAttention(BlipAttention):
    """Of the image encoder. Patches look at one another."""

    def forward(  # type: ignore[override]  # there are no probabilities
        self, hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, None]:
        """Shape (U, T, D) of both; instead of probabilities there is nothing."""
        qkv_UT3hd = self.qkv(hidden_states).reshape(
            *hidden_states.shape[:2], 3, self.num_heads, self.head_dim
        )
        q_UThd, k_UThd, v_UThd = qkv_UT3hd.unbind(2)
        mixed_UhTd = scaled_dot_product_attention(
            q_UThd.transpose(1, 2),
            k_UThd.transpose(1, 2),
            v_UThd.transpose(1, 2),
            dropout_p=self.dropout.p if self.training else 0.0,
            scale=self.scale,
        )
        return self.projection(mixed_UhTd.transpose(1, 2).flatten(2)), None


class TextAttention(BlipTextSelfAttention):
    """Of a text stack: a text's tokens look at one another, or at those of an image or a text.

    The mask of what they look at elsewhere comes as ``attention_mask``; transformers 5.23 would not
    look at it, so that the decoder attended to a question's padding and a loss depended on its
    batch.
    """

    def forward(  # type: ignore[override]  # there are no probabilities
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Shape (B, Q, D) of both; ``past_key_values`` is a cache, or a pair of caches."""
        seen_BTD, elsewhere = hidden_states, encoder_hidden_states is not None
        if encoder_hidden_states is not None:
            seen_BTD = encoder_hidden_states
            rows = rows_of(self.key, self.value)
            if past_key_values is None and rows is not None:
                # Trials of a pack in whose layers different things can be spared.
                parts = rows.parts(lambda one: (affine(self.key, one), affine(self.value, one)))
                if len(parts) > 1:
                    given = (hidden_states, attention_mask, seen_BTD)
                    found = rows.each(parts, lambda _, *part: self.forward(*part)[0], *given)
                    return torch.cat(found), None
            if past_key_values is None and self._spares(hidden_states, seen_BTD):
                return self._look(hidden_states, seen_BTD, attention_mask), None
        q_BhQd = self._heads(self.query(hidden_states))  # first: it may draw chance, as values may
        cache, known = past_key_values, False
        if isinstance(cache, EncoderDecoderCache):
            known = elsewhere and bool(cache.is_updated.get(self.layer_idx))
            cache = cache.cross_attention_cache if elsewhere else cache.self_attention_cache
        if known:
            layer = cache.layers[self.layer_idx]
            k_BhTd, v_BhTd = layer.keys, layer.values
        else:
            k_BhTd, v_BhTd = self._heads(self.key(seen_BTD)), self._heads(self.value(seen_BTD))
            if cache is not None:
                k_BhTd, v_BhTd = cache.update(k_BhTd, v_BhTd, self.layer_idx)
            if elsewhere and isinstance(past_key_values, EncoderDecoderCache):
                past_key_values.is_updated[self.layer_idx] = True
        mixed_BhQd = scaled_dot_product_attention(
            q_BhQd,
            k_BhTd,
            v_BhTd,
            attn_mask=attention_mask,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return mixed_BhQd.transpose(1, 2).flatten(2), None

    def _spares(self, x_BQD: Tensor, seen_BTD: Tensor) -> bool:
        """Keys need not be made, and it is less than half the arithmetic not to make them."""
        (queries, width), tokens = x_BQD.shape[1:], seen_BTD.shape[1]
        if ranks.here().count > 1:
            queries = QUERIES
        without = queries * width + self.num_attention_heads * queries * tokens
        chance = self.training and self.dropout.p > 0
        return self._is_affine(self.key) and not chance and 2 * without < tokens * width

    @staticmethod
    def _is_affine(layer: nn.Module) -> bool:
        """For all who have rows here."""
        rows = rows_of(layer)
        return affine(layer) if rows is None else all(affine(layer, one) for one, _ in rows.now)

    def _look(self, x_BQD: Tensor, seen_BTD: Tensor, mask: Tensor | None) -> Tensor:
        """Shape (B, Q, D): attention to tokens of which no keys are made, nor values if it can be
        helped. Legend: N heads and queries, h heads, d width of a head."""
        heads, width = self.num_attention_heads, self.attention_head_size
        (batch, queries), tokens = x_BQD.shape[:2], seen_BTD.shape[1]
        q_BQhd = self.query(x_BQD).view(batch, queries, heads, width) / math.sqrt(width)
        q_BhQI, alike_BhQ1 = turned(self.key, q_BQhd)
        scores_BNT = torch.bmm(q_BhQI.flatten(1, 2), seen_BTD.transpose(1, 2))
        scores_BhQT = scores_BNT.view(batch, heads, queries, tokens)
        if alike_BhQ1 is not None:
            scores_BhQT = scores_BhQT + alike_BhQ1
        if mask is not None:
            scores_BhQT = scores_BhQT + mask
        share_BhQT = scores_BhQT.softmax(-1).to(seen_BTD.dtype)
        if not self._is_affine(self.value):
            mixed_BhQd = share_BhQT @ self._heads(self.value(seen_BTD))
            return mixed_BhQd.transpose(1, 2).flatten(2)
        mean_BNI = torch.bmm(share_BhQT.flatten(1, 2), seen_BTD)
        return of_means(self.value, mean_BNI.view(batch, heads, queries, -1))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.attention_head_size).transpose(1, 2)
