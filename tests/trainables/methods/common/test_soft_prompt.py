"""The tokens of ``prompt`` are as real ones ahead of the text would be, in each kind of stack.

That losses and answers do not depend on the batch with them either is held in ``test_virtual``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlamaModel
from transformers.models.blip.configuration_blip import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel, BlipTextModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from trainables.methods.common import soft_prompt
from trainables.methods.common.soft_prompt import SoftTokens
from trainables.model_contract import Slot

N, T, D = 3, 6, 32


def put(stack: nn.Module, block: str, attention: str, query: str, layers: int = 2) -> Tensor:
    """Put N tokens into ``stack``; their values, of shape (1, N, D)."""
    roles = {
        "block": [block.format(i) for i in range(layers)],
        "self_attention": [attention.format(i) for i in range(layers)],
        "query": [query.format(i) for i in range(layers)],
    }
    slot = Slot(name="text", module=stack, roles={r: tuple(names) for r, names in roles.items()})
    (name,) = soft_prompt.add(slot, tokens=N)
    return stack.get_parameter(name)[None].detach()


def llama(kernel: str) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=D,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        attn_implementation=kernel,
    )
    return LlamaModel(config).eval().requires_grad_(False)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_ahead_of_a_text_under_rope(kernel: str) -> None:
    stack = llama(kernel)
    texts_BTD = torch.randn(2, T, D)
    parts = ("layers.{}", "layers.{}.self_attn", "layers.{}.self_attn.q_proj")
    reference = llama(kernel)
    real_1ND = put(stack, *parts)
    with torch.no_grad():
        both_BTD = torch.cat((real_1ND.expand(2, -1, -1), texts_BTD), dim=1)
        expected_BTD = reference(inputs_embeds=both_BTD).last_hidden_state[:, N:]
        found_BTD = stack(inputs_embeds=texts_BTD, use_cache=False).last_hidden_state
        torch.testing.assert_close(found_BTD, expected_BTD)
        past, pieces = None, []
        for piece_BTD in texts_BTD.split([3, 2, 1], dim=1):
            said = stack(inputs_embeds=piece_BTD, past_key_values=past, use_cache=True)
            past = said.past_key_values
            pieces.append(said.last_hidden_state)
        assert past.get_seq_length() == T, "they are not in the cache"
        torch.testing.assert_close(torch.cat(pieces, dim=1), expected_BTD)


def test_ahead_of_a_text_that_is_padded_on_the_left() -> None:
    """As batches are when a decoder-only model writes: padding lies between them and the text."""
    stack = llama("sdpa")
    texts_BTD = torch.randn(1, T, D)
    put(stack, "layers.{}", "layers.{}.self_attn", "layers.{}.self_attn.q_proj")
    padded_BTD = torch.cat((torch.randn(1, 2, D), texts_BTD), dim=1)
    mask_BT = torch.tensor([[0] * 2 + [1] * T])
    places_BT = torch.tensor([[0] * 2 + list(range(T))])
    with torch.no_grad():
        alone_BTD = stack(inputs_embeds=texts_BTD).last_hidden_state
        padded = stack(inputs_embeds=padded_BTD, attention_mask=mask_BT, position_ids=places_BT)
    torch.testing.assert_close(padded.last_hidden_state[:, 2:], alone_BTD)


@pytest.mark.parametrize("causal", [False, True])
def test_ahead_of_a_text_that_looks_at_an_image(causal: bool) -> None:
    """Cross-attention, with padding in both."""
    config = BlipTextConfig(
        vocab_size=20,
        hidden_size=D,
        encoder_hidden_size=D,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.2,
    )
    kind = BlipTextLMHeadModel if causal else BlipTextModel
    torch.manual_seed(0)
    stack: Any = kind(config).eval().requires_grad_(False)
    inner = stack.bert if causal else stack
    tokens_BT = torch.randint(20, (2, T))
    mask_BT = torch.tensor([[1] * T, [1] * (T - 2) + [0] * 2])
    seen = {
        "encoder_hidden_states": torch.randn(2, 4, D),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    }
    with torch.no_grad():
        embedded_BTD = inner.embeddings(input_ids=tokens_BT)
    # Without tokens, for what is expected below.
    reference: Any = kind(config).eval().requires_grad_(False)
    reference.load_state_dict(stack.state_dict())
    prefix = "bert.encoder.layer.{}" if causal else "encoder.layer.{}"
    self_attention = f"{prefix}.attention.self"
    real_1ND = put(stack, prefix, self_attention, f"{self_attention}.query")
    assert isinstance(stack.soft_tokens, SoftTokens)
    assert stack.soft_tokens.causal == causal
    with torch.no_grad():
        expected = (reference.bert if causal else reference)(
            encoder_embeds=torch.cat((real_1ND.expand(2, -1, -1), embedded_BTD), dim=1),
            attention_mask=nn.functional.pad(mask_BT, (N, 0), value=1),
            is_decoder=causal,
            **seen,
        ).last_hidden_state[:, N:]
        if causal:
            expected = reference.cls(expected)
        found = stack(input_ids=tokens_BT, attention_mask=mask_BT, use_cache=False, **seen)
    found = found.logits if causal else found.last_hidden_state
    torch.testing.assert_close(found[mask_BT.bool()], expected[mask_BT.bool()])


def test_among_the_patches_of_an_image() -> None:
    """VPT-shallow: they see the patches, the patches see them, and none comes out."""
    config = CLIPVisionConfig(
        hidden_size=D, intermediate_size=64, num_attention_heads=2, attn_implementation="sdpa"
    )

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(CLIPEncoderLayer(config) for _ in range(2))

        def forward(self, hidden_BTD: Tensor) -> Tensor:
            for layer in self.layers:
                hidden_BTD = layer(hidden_BTD, None)
            return hidden_BTD

    torch.manual_seed(0)
    stack, reference = Stack().requires_grad_(False), Stack().requires_grad_(False)
    reference.load_state_dict(stack.state_dict())
    real_1ND = put(stack, "layers.{}", "layers.{}.self_attn", "layers.{}.self_attn.q_proj")
    patches_BTD = torch.randn(2, T, D)
    with torch.no_grad():
        both_BTD = torch.cat((real_1ND.expand(2, -1, -1), patches_BTD), dim=1)
        torch.testing.assert_close(stack(patches_BTD), reference(both_BTD)[:, N:])
