"""Reads pretrained towers and joins them to a BLIP that is not aligned yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    Dinov2Model,
    PreTrainedModel,
)

from trainables import stored_json
from trainables.cache import hub
from trainables.errors import BadInput, unknown
from trainables.model_tools.composing import graft
from trainables.model_tools.composing.compose_config import ComposeConfig
from trainables.models.blip import Blip
from trainables.models.common import weights_folder
from trainables.seeding import seeded

POSITIONS = 64  # most tokens of a question or an answer; the family cuts them shorter
BEGIN = "[DEC]"  # the token that begins an answer, as in Salesforce/blip-vqa-base


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Mean and standard deviation, for each channel, of the images that a tower was trained on, as
    its ``preprocessor_config.json`` has them; without: those of ImageNet, as DINOv2's."""

    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Two pretrained towers that fit together."""

    vision: Dinov2Model
    normalisation: Normalisation
    """Mean and standard deviation of the images that ``vision`` was trained on."""
    text: BertModel
    """Text encoder, with as many layers as were asked for."""
    tokenizer: BertTokenizer
    """Tokenizer of ``text``, with its whole vocabulary."""


def read(config: ComposeConfig) -> Parts:
    """Read both towers, in fp32.

    Raises:
        BadInput: a folder is of a family that BLIP can't represent, or lacks a weight or the
            tokenizer; a ``preprocessor_config.json`` can't be read; or the towers differ in width,
            or do not have what ``config`` asks for.
    """
    vision_folder, text_folder = (
        hub.local_folder(config.vision, "model"),
        hub.local_folder(config.text, "model"),
    )
    vision = _load("--vision", vision_folder, Dinov2Model, "dinov2")
    text = _load("--text", text_folder, _Bert, "bert")
    _check(config, vision.config, text.config)
    layers: Any = text.encoder.layer
    depth, wanted = len(layers), config.text_layers or len(layers)
    text.encoder.layer = nn.ModuleList([layers[i] for i in choose_layers(wanted, depth)])
    try:
        tokenizer = BertTokenizer.from_pretrained(text_folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"--text {text_folder} has no tokenizer that can be read ({error})"
        ) from error
    file, normalisation = vision_folder / "preprocessor_config.json", Normalisation()
    if file.is_file():
        normalisation = stored_json.read(Normalisation, file, versions=None)
    return Parts(vision=vision, normalisation=normalisation, text=text, tokenizer=tokenizer)


def choose_layers(wanted: int, depth: int) -> list[int]:
    """Choose ``wanted`` of ``depth`` layers at equal distances, the first and the last among them.

    DistilBERT was initialised in this way (Sanh et al. 2019, arXiv 1910.01108): layers of one
    residual stream still work together if those between them are left out, and the last layer gives
    features as they were trained. A single layer is the last.

    >>> choose_layers(3, 6), choose_layers(6, 6), choose_layers(1, 6)
    ([0, 2, 5], [0, 1, 2, 3, 4, 5], [5])
    """
    if wanted == 1:
        return [depth - 1]
    return [number * (depth - 1) // (wanted - 1) for number in range(wanted)]


def _load(option: str, folder: Path, kind: type[PreTrainedModel], family: str) -> Any:
    """Read the network of a folder, which must be of ``family``."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        given = str(config.get("model_type"))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{option} {folder} has no config.json that can be read; give a folder as Hugging "
            "Face's libraries write it, or hub:NAME"
        ) from error
    if given != family:
        raise unknown(f"family of {option} {folder}:", given, [family])
    called = {"dinov2": "DINOv2", "bert": "BERT"}[family]
    return weights_folder.read(kind, folder, called=called, dtype=torch.float32, part=True)


class _Bert(BertModel):
    """A BERT without the pooler, which only some folders hold."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config, add_pooling_layer=False)


def _check(config: ComposeConfig, vision: Any, text: Any) -> None:
    """Refuse towers that do not fit together or lack what is asked for."""
    patch = vision.patch_size
    if vision.hidden_size != text.hidden_size:
        raise BadInput(
            f"the image encoder is {vision.hidden_size} wide and the text encoder "
            f"{text.hidden_size}; BLIP has one width: give two that are equally wide"
        )
    if vision.use_swiglu_ffn:
        raise BadInput(f"--vision {config.vision} has SwiGLU layers, for which BLIP has no place")
    if config.image_size % patch or config.image_size < patch:
        near = max(1, round(config.image_size / patch)) * patch
        raise BadInput(
            f"--image-size {config.image_size} is not a multiple of the image encoder's patches "
            f"of {patch} px; {near} is"
        )
    if config.text_layers > text.num_hidden_layers:
        raise BadInput(
            f"--text-layers {config.text_layers} is more than the {text.num_hidden_layers} that "
            "the text encoder has"
        )


def join(parts: Parts, config: ComposeConfig) -> Blip:
    """Make a BLIP whose image and question encoders compute the features of the towers."""
    pieces = _words(parts.tokenizer)
    kept = frequent_pieces(pieces, config.vocabulary or len(pieces))
    tokenizer = _tokenizer(parts.tokenizer, [pieces[old] for old in kept])
    text = {
        **graft.text_config(parts.text),
        "num_hidden_layers": len(parts.text.encoder.layer),
        "vocab_size": len(kept) + 1,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    vision = graft.vision_config(parts.vision, config.image_size)
    with seeded("compose", config.seed):
        network = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision))
    mean, deviation = parts.normalisation.image_mean, parts.normalisation.image_std
    seen = graft.vision_weights(parts.vision, config.image_size, mean, deviation)
    network.vision_model.load_state_dict(seen)
    # [DEC] gets the embedding of [CLS]: it begins an answer, as [CLS] began every text.
    begin = pieces.index(str(parts.tokenizer.cls_token))
    read = graft.text_weights(parts.text, [*kept, begin], POSITIONS)
    left = network.text_encoder.load_state_dict(read, strict=False).missing_keys
    assert all(".crossattention.self." in name for name in left), left
    network.text_decoder.bert.load_state_dict(graft.add_cross_attention(read))
    network.eval().requires_grad_(False)
    return Blip(name=config.out.name, digest="", network=network, tokenizer=tokenizer)


def _words(tokenizer: BertTokenizer) -> list[str]:
    """Word pieces of a tokenizer, in the order of their ids."""
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=lambda piece: vocabulary[piece])


def frequent_pieces(pieces: Sequence[str], wanted: int) -> list[int]:
    """Indices, ascending, of the ``wanted`` most frequent word pieces.

    The vocabulary of a BERT lists its pieces in the order in which they were found, the frequent
    ones first. All special tokens and single characters are kept, so that every word can still be
    spelt; a rare word becomes several pieces.

    Raises:
        BadInput: ``wanted`` is too small for the special tokens and single characters.
    """

    def special(piece: str) -> bool:
        return piece.startswith("[") and piece.endswith("]") and len(piece) > 2

    used = [i for i, piece in enumerate(pieces) if not piece.startswith("[unused")]
    must = {i for i in used if special(pieces[i]) or len(pieces[i].removeprefix("##")) == 1}
    rest = [i for i in used if i not in must]
    if wanted >= len(used):
        return used
    if wanted < len(must):
        raise BadInput(
            f"--vocabulary {wanted} is less than the {len(must)} special tokens and single "
            f"characters of the text encoder; give {len(must)} to {len(used)}, or 0 for all"
        )
    return sorted([*must, *rest[: wanted - len(must)]])


def _tokenizer(whole: BertTokenizer, pieces: Sequence[str]) -> BertTokenizer:
    """A tokenizer that splits texts as ``whole`` does, into ``pieces`` and ``[DEC]``."""
    names = "do_lower_case strip_accents tokenize_chinese_chars".split()
    names += "unk_token cls_token sep_token pad_token mask_token".split()
    settings = {name: whole.init_kwargs[name] for name in names if name in whole.init_kwargs}
    return BertTokenizer(
        vocab={piece: number for number, piece in enumerate([*pieces, BEGIN])},
        **settings,
        bos_token=BEGIN,
        model_max_length=POSITIONS,
    )
