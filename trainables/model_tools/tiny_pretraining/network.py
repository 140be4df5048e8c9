"""The small model before any training: its vocabulary, sizes and initial weights."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering

from trainables.model_tools.tiny_pretraining import sentences
from trainables.model_tools.tiny_pretraining.shapes import SIDE_PX
from trainables.models.common.clip import pixels

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")
PATCH_PX = 16


def vocabulary() -> tuple[str, ...]:
    """The WordPiece vocabulary: special tokens, characters, beginnings, endings and whole words.

    It is sorted within each group, and made without the trainer of ``tokenizers``, whose order of
    equally frequent pieces is not fixed. Every ASCII character is a piece, so that no ASCII text is
    unknown.
    """
    words = sentences.words()
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    begins = Counter(word[:n] for word in words for n in range(2, 6) if n < len(word))
    ends = Counter(word[-n:] for word in words for n in range(2, 6) if n < len(word))
    pieces = sorted(piece for piece, count in begins.items() if count >= 4)
    endings = sorted(f"##{piece}" for piece, count in ends.items() if count >= 4)
    tokens = (*SPECIAL, *characters, *(f"##{c}" for c in characters), *pieces, *endings, *words)
    return tuple(dict.fromkeys(tokens))


def make_tokenizer() -> BertTokenizer:
    """A lower-casing BERT tokenizer; ``[DEC]`` begins an answer, as in Salesforce/blip-vqa-base."""
    return BertTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary())},
        do_lower_case=True,
        bos_token="[DEC]",
        extra_special_tokens=["[ENC]"],
        model_max_length=64,
    )


def make_network(tokenizer: BertTokenizer) -> BlipForQuestionAnswering:
    """A new network, with random weights from torch's global generator."""
    width, heads = 192, 4
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "num_hidden_layers": 2,
        "intermediate_size": 4 * width,
        "num_attention_heads": heads,
        "max_position_embeddings": 64,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
    vision = {
        "hidden_size": width,
        "num_hidden_layers": 4,
        "intermediate_size": 2 * width,
        "num_attention_heads": heads,
        "image_size": SIDE_PX,
        "patch_size": PATCH_PX,
        "initializer_range": 0.02,  # the default, 1e-10, is meant for weights that are loaded
    }
    network = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision))
    generation: Any = network.generation_config
    generation.num_beams = 1  # greedy, so that studies with this model are fast
    return network


@torch.no_grad()
def whiten(network: BlipForQuestionAnswering, images_USSC: NDArray[np.uint8]) -> None:
    """Initialise the patch embedding with the patches' principal components, at equal strength.

    Texture is a hundred times weaker in the pixels than brightness; from random weights the encoder
    would spend most of its training on finding it. Position embeddings start as waves over rows and
    columns, so that neighbours are alike.
    """
    embeddings = network.vision_model.embeddings
    patches = nn.functional.unfold(pixels(images_USSC), PATCH_PX, stride=PATCH_PX)
    flat = patches.transpose(1, 2).reshape(-1, 3 * PATCH_PX**2)
    strength, component = torch.linalg.eigh(torch.cov(flat.T))  # in ascending order
    width = embeddings.embed_dim
    strength, component = strength.flip(0)[:width], component.flip(1)[:, :width]
    weight = 0.5 * (component / (strength + 0.01).sqrt()).T
    embeddings.patch_embedding.weight.copy_(weight.view(width, 3, PATCH_PX, PATCH_PX))
    embeddings.patch_embedding.bias = nn.Parameter(-weight @ flat.mean(0))
    side = SIDE_PX // PATCH_PX
    angles = torch.arange(side)[:, None] * torch.logspace(0, -1.3, width // 4) * math.pi
    wave = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    grid = [wave[:, None].expand(side, side, -1), wave[None].expand(side, side, -1)]
    embeddings.position_embedding[0, 1:] = 0.3 * torch.cat(grid, dim=2).view(side**2, width)
