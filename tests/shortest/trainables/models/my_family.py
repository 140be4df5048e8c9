"""my_family: a BLIP under a name of its own. It shows what a family must define; one whose parts
are its own also has a class like ``trainables.models.blip.Blip``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering

from trainables.cache import hub
from trainables.errors import BadInput
from trainables.model_contract import Skeleton
from trainables.models.blip import QUESTION_TOKENS, Blip
from trainables.models.common import weights_folder

PRESETS = {"my-preset": {"image_size": 224}}


class MyConfig(BlipConfig):
    """The configuration, whose ``model_type`` is the name of this file."""

    model_type = "my_family"


class MyNetwork(BlipForQuestionAnswering):
    """The network of this configuration."""

    config_class = MyConfig


def load(path: Path, image_size: int | None = None, precision: str = "fp32") -> Blip:
    """Load a model folder.

    Raises:
        BadInput: an image size was given, or a file or a weight is missing or damaged.
    """
    if image_size is not None:
        raise BadInput("my_family takes images of its folder's size only")
    weights_folder.needs_tokenizer(path, "vocab.txt")
    return Blip(
        name=hub.name_of(path),
        digest=weights_folder.digest(path, image_size),
        network=weights_folder.read(MyNetwork, path, called="my_family", dtype=torch.float32),
        tokenizer=BertTokenizer.from_pretrained(path, local_files_only=True),
    )


def skeleton(
    source: str | Path, image_size: int | None = None, precision: str = "fp32"
) -> Skeleton:
    """The structure of a preset or of a folder's model, without weights."""
    if isinstance(source, Path):
        name, config = hub.name_of(source), MyConfig.from_pretrained(source, local_files_only=True)
    else:
        name, config = source, MyConfig(vision_config=PRESETS[source])
    with torch.device("meta"):
        network = MyNetwork(config).eval().requires_grad_(False)
    model = Blip(name=name, digest="", network=network, tokenizer=None)
    return Skeleton.of(model, question_tokens=QUESTION_TOKENS)


def small(words: Sequence[str]) -> Blip:
    """A random model that knows ``words``, for the contract tests.

    Its weights are large enough for an answer to depend on the image.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    tokens = {"bos": "[DEC]", "eos": "[SEP]", "sep": "[SEP]", "pad": "[PAD]"}
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.2,
    }
    text = {
        "vocab_size": len(vocabulary),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 40,
        **{f"{role}_token_id": vocabulary[token] for role, token in tokens.items()},
    }
    torch.manual_seed(0)
    network = MyNetwork(
        MyConfig(
            text_config={**sizes, **text},
            vision_config={**sizes, "image_size": 32, "patch_size": 16},
        )
    )
    return Blip(
        name="small",
        digest="0" * 64,
        network=network.eval().requires_grad_(False),
        tokenizer=BertTokenizer(vocab=vocabulary, bos_token="[DEC]"),
    )
