"""BLIP's attention with less arithmetic and memory than in transformers, equal up to rounding.

transformers 5.23 computes attention by plain operations: for a 480-pixel image, each head of each
layer keeps 901 x 901 probabilities, most of the memory that training the image encoder takes.
PyTorch's own kernels keep none.

transformers makes three masks a pass out of some fifty small operations, in two of which the host
waits for the device to know whether a mask hides anything. Those below take eight.

A question has few tokens and an image many, so most of a text stack's arithmetic would go into keys
and values of the image's tokens, for each question and layer anew. Weight absorption, as in
multi-head latent attention, does without them (``trainables.shared_layers.absorbed_projections``).
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

from trainables.engine import ranks
from trainables.shared_layers.absorbed_projections import (
    absorb_key,
    is_affine,
    project_means,
    row_owners_of,
)

QUERIES = 20
"""Number of query tokens that is assumed if several workers train one trial. The workers have to
decide alike, whatever their questions: otherwise gradients would be ready in a different order on
each, and DeepSpeed adds them up as they come."""


def fuse(network: nn.Module) -> None:
    """Make a network use the attention below; its layers keep their names and weights."""
    for module in network.modules():
        for kind in (ImageAttention, TextAttention):
            if type(module) is kind.__base__:
                module.__class__ = kind


def hide_padding(mask_BT: Tensor) -> Tensor:
    """What attention adds to scores so that padding, where ``mask_BT`` is 0, is not attended to;
    shape (B, 1, 1, T)."""
    dtype = _type_of_scores(mask_BT.device)
    nothing_BT = torch.zeros_like(mask_BT, dtype=dtype)
    return nothing_BT.masked_fill_(mask_BT == 0, torch.finfo(dtype).min)[:, None, None]


def hide_later(tokens_BT: Tensor) -> Tensor:
    """What attention adds to scores so that no token attends to later ones; shape (1, 1, T, T).

    That hides padding on the right from all other tokens, too.
    """
    tokens, device = tokens_BT.shape[1], tokens_BT.device
    dtype = _type_of_scores(device)
    most = torch.full((tokens, tokens), torch.finfo(dtype).min, dtype=dtype, device=device)
    return most.triu_(1)[None, None]


def _type_of_scores(device: torch.device) -> torch.dtype:
    """Type of attention's scores, to which autocast would cast a mask in each layer anew."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.float32


class ImageAttention(BlipAttention):
    """Attention of the image encoder, where patches attend to one another."""

    def forward(  # type: ignore[override]  # returns no probabilities
        self, hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, None]:
        """Attend; input and output have shape (U, T, D). None stands in place of probabilities."""
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
    """Attention of a text stack: to the text's own tokens, or to those of an image or another text.

    In cross-attention the mask of the attended tokens comes as ``attention_mask``. transformers
    5.23 would ignore it, so that the decoder attended to a question's padding and a loss depended
    on its batch.
    """

    def forward(  # type: ignore[override]  # returns no probabilities
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Attend; input and output have shape (B, Q, D). None stands in place of probabilities.

        ``past_key_values`` is a cache, or a pair of caches for self- and cross-attention.
        """
        seen_BTD, elsewhere = hidden_states, encoder_hidden_states is not None
        if encoder_hidden_states is not None:
            seen_BTD = encoder_hidden_states
            rows = row_owners_of(self.key, self.value)
            if past_key_values is None and rows is not None:
                # Members of a pack run apart if different projections can be absorbed for them.
                parts = rows.runs(lambda m: (is_affine(self.key, m), is_affine(self.value, m)))
                if len(parts) > 1:
                    given = (hidden_states, attention_mask, seen_BTD)
                    found = rows.map(parts, lambda _, *part: self.forward(*part)[0], *given)
                    return torch.cat(found), None
            if past_key_values is None and self._spares(hidden_states, seen_BTD):
                return self._look(hidden_states, seen_BTD, attention_mask), None
        q_BhQd = self._heads(self.query(hidden_states))  # first, to fix the order of dropout draws
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
        """Whether weight absorption is possible here and takes less than half of the arithmetic."""
        (queries, width), tokens = x_BQD.shape[1:], seen_BTD.shape[1]
        if ranks.current().count > 1:
            queries = QUERIES
        without = queries * width + self.num_attention_heads * queries * tokens
        chance = self.training and self.dropout.p > 0
        return self._is_affine(self.key) and not chance and 2 * without < tokens * width

    @staticmethod
    def _is_affine(layer: nn.Module) -> bool:
        """Whether a layer is an affine map, for all members of a pack with rows in this pass."""
        rows = row_owners_of(layer)
        if rows is None:
            return is_affine(layer)
        return all(is_affine(layer, member) for member, _ in rows.owners)

    def _look(self, x_BQD: Tensor, seen_BTD: Tensor, mask: Tensor | None) -> Tensor:
        """Cross-attention by weight absorption; shape (B, Q, D).

        No keys of the attended tokens are made, and no values either if their layer is affine.
        Legend: N heads and queries, h heads, d width of a head, I inputs of the layer.
        """
        heads, width = self.num_attention_heads, self.attention_head_size
        (batch, queries), tokens = x_BQD.shape[:2], seen_BTD.shape[1]
        q_BQhd = self.query(x_BQD).view(batch, queries, heads, width) / math.sqrt(width)
        q_BhQI, alike_BhQ1 = absorb_key(self.key, q_BQhd)
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
        return project_means(self.value, mean_BNI.view(batch, heads, queries, -1))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        """Divide the width into heads; shape (B, h, T, d)."""
        return x_BTD.view(*x_BTD.shape[:2], -1, self.attention_head_size).transpose(1, 2)
