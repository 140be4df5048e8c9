"""BLIP's attention by PyTorch's kernels gives what transformers' own gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipConfig, BlipForQuestionAnswering

from trainables.models.common.attention import ImageAttention, TextAttention, fuse

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture
def network() -> Any:
    torch.manual_seed(0)
    config = BlipConfig(
        text_config={
            **SMALL,
            "encoder_hidden_size": 32,
            "vocab_size": 50,
            "initializer_range": 0.3,
        },
        vision_config={**SMALL, "image_size": 32, "patch_size": 8, "initializer_range": 0.3},
    )
    return BlipForQuestionAnswering(config).eval()


def encoded(network: Any) -> Tensor:
    pixels_UCSS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
    image_UTD: Tensor = network.vision_model(pixels_UCSS).last_hidden_state
    return image_UTD


def fused(network: Any) -> Tensor:
    """A question with padding, which looks at an image."""
    words_BQ = torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]])
    asked = network.text_encoder(
        input_ids=words_BQ,
        attention_mask=words_BQ.ne(0).long(),
        encoder_hidden_states=encoded(network),
    )
    question_BQD: Tensor = asked.last_hidden_state
    return question_BQD


def answered(network: Any) -> Tensor:
    """Token by token, with a cache for each kind of attention."""
    tokens_BA: Tensor = network.text_decoder.generate(
        input_ids=torch.full((2, 1), 5),
        encoder_hidden_states=fused(network),
        max_new_tokens=6,
        num_beams=2,
        do_sample=False,
        eos_token_id=49,
        pad_token_id=0,
    )
    return tokens_BA


@pytest.fixture(params=["keys are made", "none are made"])
def spares(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tokens elsewhere keys are made, or none wherever that can be; whatever is cheaper."""
    none = request.param == "none are made"
    monkeypatch.setattr(
        TextAttention, "_spares", lambda self, *_: none and self._is_affine(self.key)
    )


@pytest.mark.usefixtures("spares")
@pytest.mark.parametrize("said", [encoded, fused, answered])
def test_it_is_the_same(network: Any, said: Callable[[Any], Tensor]) -> None:
    network.requires_grad_(False)
    with torch.no_grad():
        expected = said(network)
        fuse(network)
        torch.testing.assert_close(said(network), expected)
    kinds = {type(module) for module in network.modules()}
    assert {ImageAttention, TextAttention} <= kinds


def test_gradients_are_the_same(network: Any) -> None:
    found = []
    for _ in range(2):
        network.zero_grad()
        fused(network).square().sum().backward()
        found.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
        fuse(network)
    before, after = found
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        # A key's bias changes no probability: its gradient is what rounding leaves of nothing.
        torch.testing.assert_close(after[name], gradient, rtol=1e-3, atol=1e-3, msg=name)


def test_what_a_text_looks_at_elsewhere_may_be_masked(network: Any) -> None:
    """transformers' decoder looks at a question's padding."""
    fuse(network)
    words_BA, seen_BQD = torch.tensor([[5, 7]]), torch.randn(1, 4, 32)

    def logits(seen_BQD: Tensor, mask_BQ: Tensor) -> Any:
        return network.text_decoder(
            input_ids=words_BA, encoder_hidden_states=seen_BQD, encoder_attention_mask=mask_BQ
        ).logits

    with torch.no_grad():
        short = logits(seen_BQD[:, :3], torch.ones(1, 3, dtype=torch.long))
        padded = logits(seen_BQD, torch.tensor([[1, 1, 1, 0]]))
    torch.testing.assert_close(padded, short)
