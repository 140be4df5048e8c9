"""BLIP's attention by PyTorch's own kernels, which keep no probabilities for the backward pass.

transformers 5.23 computes it by plain operations: of a 480-pixel image each head of each layer
keeps 901 x 901 probabilities, most of the memory that training the image encoder takes. The numbers
are the same to rounding.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import EncoderDecoderCache
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention


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
        elsewhere = encoder_hidden_states is not None
        cache, known = past_key_values, False
        if isinstance(cache, EncoderDecoderCache):
            known = elsewhere and bool(cache.is_updated.get(self.layer_idx))
            cache = cache.cross_attention_cache if elsewhere else cache.self_attention_cache
        if known:
            layer = cache.layers[self.layer_idx]
            k_BhTd, v_BhTd = layer.keys, layer.values
        else:
            seen = encoder_hidden_states if elsewhere else hidden_states
            k_BhTd, v_BhTd = self._heads(self.key(seen)), self._heads(self.value(seen))
            if cache is not None:
                k_BhTd, v_BhTd = cache.update(k_BhTd, v_BhTd, self.layer_idx)
            if elsewhere and isinstance(past_key_values, EncoderDecoderCache):
                past_key_values.is_updated[self.layer_idx] = True
        mixed_BhQd = scaled_dot_product_attention(
            self._heads(self.query(hidden_states)),
            k_BhTd,
            v_BhTd,
            attn_mask=attention_mask,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return mixed_BhQd.transpose(1, 2).flatten(2), None

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.attention_head_size).transpose(1, 2)
