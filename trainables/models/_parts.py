"""Reading pretrained towers, and joining them to a BLIP that has learnt nothing new yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

from trainables import hub
from trainables.errors import BadInput, unknown
from trainables.models import _checkpoint, _graft
from trainables.models.blip import Blip
from trainables.seeds import seeded

if TYPE_CHECKING:
    from trainables.models.compose import ComposeConfig

# Mean and deviation of ImageNet's images, with which DINOv2 was trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
POSITIONS = 64  # tokens of a question or an answer at most, as the family cuts them shorter
BEGIN = "[DEC]"  # begins an answer, as in Salesforce/blip-vqa-base


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Two pretrained towers that fit together."""

    vision: Dinov2Model
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    """Of the images that it was trained on."""
    text: BertModel
    """With as many layers as are wanted."""
    tokenizer: BertTokenizer
    """With all its words."""


# --- 1. Reading ----------------------------------------------------------------------------------


def read(config: ComposeConfig) -> Parts:
    """Both towers, in fp32.

    Raises:
        BadInput: a folder is not of a family that BLIP can hold, or a weight is missing; the two
            differ in width, or do not have what is asked for.
    """
    eyes, reader = hub.folder(config.vision, "model"), hub.folder(config.text, "model")
    vision = _load("--vision", eyes, Dinov2Model, "dinov2")
    text = _load("--text", reader, _Bert, "bert")
    _check(config, vision.config, text.config)
    layers: Any = text.encoder.layer
    depth, wanted = len(layers), config.text_layers or len(layers)
    text.encoder.layer = nn.ModuleList([layers[i] for i in spread(wanted, depth)])
    try:
        tokenizer = BertTokenizer.from_pretrained(reader, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"--text {reader} has no tokenizer that can be read ({error})") from error
    mean, deviation = _normalisation(eyes)
    return Parts(vision=vision, mean=mean, deviation=deviation, text=text, tokenizer=tokenizer)


def spread(wanted: int, depth: int) -> list[int]:
    """``wanted`` of ``depth`` layers at equal distances, the first and the last among them.

    So DistilBERT was started (Sanh et al. 2019, arXiv 1910.01108): layers of one residual stream
    that lie apart still understand each other, and the last gives features as they were trained.

    >>> spread(3, 6), spread(6, 6), spread(1, 6)
    ([0, 2, 5], [0, 1, 2, 3, 4, 5], [5])
    """
    if wanted == 1:
        return [depth - 1]
    return [number * (depth - 1) // (wanted - 1) for number in range(wanted)]


def _load(option: str, folder: Path, kind: type[PreTrainedModel], family: str) -> Any:
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        given = str(said.get("model_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{option} {folder} has no config.json that can be read; give a folder as Hugging "
            "Face's libraries write it, or hub:NAME"
        ) from error
    if given != family:
        raise unknown(f"family of {option} {folder}:", given, [family])
    called = {"dinov2": "DINOv2", "bert": "BERT"}[family]
    return _checkpoint.read(kind, folder, called=called, dtype=torch.float32, part=True)


class _Bert(BertModel):
    """Without the pooler, which the folder of a BERT has or has not."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config, add_pooling_layer=False)


def _check(config: ComposeConfig, vision: Any, text: Any) -> None:
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


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the images that a tower was trained on."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return IMAGENET
    said = json.loads(file.read_text(encoding="utf-8"))
    return tuple(said.get("image_mean", IMAGENET[0])), tuple(said.get("image_std", IMAGENET[1]))


# --- 2. Joining ----------------------------------------------------------------------------------


def join(parts: Parts, config: ComposeConfig) -> Blip:
    """A BLIP whose image and question encoders give what the towers gave."""
    pieces = _words(parts.tokenizer)
    kept = frequent(pieces, config.vocabulary or len(pieces))
    tokenizer = _tokenizer(parts.tokenizer, [pieces[old] for old in kept])
    text = {
        **_graft.text_config(parts.text),
        "num_hidden_layers": len(parts.text.encoder.layer),
        "vocab_size": len(kept) + 1,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    vision = _graft.vision_config(parts.vision, config.image_size)
    with seeded("compose", config.seed):
        network = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision))
    seen = _graft.vision_weights(parts.vision, config.image_size, parts.mean, parts.deviation)
    network.vision_model.load_state_dict(seen)
    # [DEC] begins an answer as [CLS] began every text.
    begin = pieces.index(str(parts.tokenizer.cls_token))
    read = _graft.text_weights(parts.text, [*kept, begin], POSITIONS)
    left = network.text_encoder.load_state_dict(read, strict=False).missing_keys
    assert all(".crossattention.self." in name for name in left), left
    network.text_decoder.bert.load_state_dict(_graft.attending(read))
    network.eval().requires_grad_(False)
    return Blip(name=config.out.name, digest="", network=network, tokenizer=tokenizer)


def _words(tokenizer: BertTokenizer) -> list[str]:
    """The word pieces, in the order of their ids."""
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=lambda piece: vocabulary[piece])


def frequent(pieces: Sequence[str], wanted: int) -> list[int]:
    """Indices of the ``wanted`` pieces to keep, ascending.

    The vocabulary of a BERT is written in the order in which its pieces were found, the frequent
    ones first. All special tokens and single characters are kept, so that every word can still be
    spelt; a rare word becomes several pieces.
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
    """One that cuts texts as ``whole`` does, into fewer pieces and one more."""
    names = "do_lower_case strip_accents tokenize_chinese_chars".split()
    names += "unk_token cls_token sep_token pad_token mask_token".split()
    said = {name: whole.init_kwargs[name] for name in names if name in whole.init_kwargs}
    return BertTokenizer(
        vocab={piece: number for number, piece in enumerate([*pieces, BEGIN])},
        **said,
        bos_token=BEGIN,
        model_max_length=POSITIONS,
    )
