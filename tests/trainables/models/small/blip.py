"""A small random BLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trainables.models.blip import Blip


def small(words: Sequence[str], patch: int = 16, **settings: Any) -> Blip:
    """A random BLIP that knows ``words``; ``settings`` are of both its stacks.

    Its weights are large enough for all its parts to matter: with the usual 0.02 every answer would
    be as likely as any other, whatever the image.
    """
    from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    tokenizer = BertTokenizer(
        vocab={word: i for i, word in enumerate([*special, *words])}, bos_token="[DEC]"
    )
    width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    common = {**width, "num_attention_heads": 2, "initializer_range": 0.2, **settings}
    text = {
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": common["hidden_size"],
        "max_position_embeddings": 40,
        "bos_token_id": special.index("[DEC]"),
        "eos_token_id": special.index("[SEP]"),
        "sep_token_id": special.index("[SEP]"),
        "pad_token_id": special.index("[PAD]"),
    }
    torch.manual_seed(0)
    network = BlipForQuestionAnswering(
        BlipConfig(
            text_config={**common, **text},
            vision_config={**common, "image_size": 32, "patch_size": patch},
        )
    )
    network.eval().requires_grad_(False)
    return Blip(name="small", digest="0" * 64, network=network, tokenizer=tokenizer)
