"""Small random BLIP-2 and InstructBLIP models: in memory, and as a folder with processor files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.trainables.made_llava import words_tokenizer
from trainables.model_tools.tiny_pretraining.network import vocabulary
from trainables.models.blip_2 import Blip2
from trainables.models.common.blip2_network import Parts
from trainables.models.instructblip import TOKENIZER, InstructBlip, Tokenizers

SIZE, QUERIES = 32, 4
WIDTH = {"hidden_size": 32, "intermediate_size": 64}
HEADS = {"num_attention_heads": 4, "num_hidden_layers": 2}
OPT = {"model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, **HEADS}
LLAMA = {"model_type": "llama", "num_key_value_heads": 2, **WIDTH, **HEADS}
PROMPT = ("question", "answer", "short")


def published(kind: type[Blip2], tokenizer: Any, positions: int = 512, **settings: Any) -> Any:
    """A random network of a family, the same at every call.

    Its weights are large enough for all its parts to matter. Its decoder has so many ``positions``;
    ``settings`` are of its configuration.
    """
    text = {"max_position_embeddings": positions, "vocab_size": len(tokenizer)}
    text |= LLAMA if kind is InstructBlip else OPT
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = kind.kind.config_class.from_dict(
        {
            "vision_config": {**WIDTH, **HEADS, "image_size": SIZE, "patch_size": 16},
            "qformer_config": {**WIDTH, **HEADS, "vocab_size": len(tokenizer) + 8},
            "text_config": {**text, **ids, "pad_token_id": tokenizer.eos_token_id},
            "num_query_tokens": QUERIES,
            "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
            **settings,
        }
    )
    torch.manual_seed(1)
    found = kind.kind(config).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return found


def qformer_tokenizer(words: Sequence[str]) -> Any:
    """The Q-Former's own tokenizer, whose numbers of words are others than the decoder's."""
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *reversed(words), *PROMPT, ":"])
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})


def small(kind: type[Blip2], words: Sequence[str]) -> Blip2:
    """Small model of a family."""
    tokenizer = words_tokenizer([*words, *PROMPT])
    network = Parts(published(kind, tokenizer)).eval().requires_grad_(False)
    both = Tokenizers(tokenizer, qformer_tokenizer(words))
    tokenizer = both if kind is InstructBlip else tokenizer
    return kind(name="small", digest="0" * 64, network=network, tokenizer=tokenizer)


def write(
    folder: Path,
    kind: type[Blip2] = Blip2,
    words: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Path:
    """A model folder of a family, its weights in ``dtype``; its words are those of ``tiny`` or
    ``words``."""
    words = vocabulary() if words is None else words
    tokenizer = words_tokenizer([*words, *PROMPT])
    published(kind, tokenizer, **settings).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if kind is InstructBlip:
        qformer_tokenizer(words).save_pretrained(folder / TOKENIZER)
    size = {"height": SIZE, "width": SIZE}
    images = {"image_processor_type": "BlipImageProcessor", "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")
    name = f"{'InstructBlip' if kind is InstructBlip else 'Blip2'}Processor"
    processor = {"processor_class": name, "num_query_tokens": QUERIES}
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder
