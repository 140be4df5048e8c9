"""Small random models of the classes of ``AutoModelForImageTextToText``, as folders.

They are in transformers' own layout, with tokenizer, chat template and image processor of their
class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainables import registry
from trainables.errors import too_old
from trainables.model_tools.tiny_pretraining.network import vocabulary

SIZE = 32
"""Pixels a side of an image."""
WIDTH = {"hidden_size": 32, "intermediate_size": 64}
HEADS = {"num_attention_heads": 4, "num_hidden_layers": 2}
DECODER = {**WIDTH, **HEADS, "num_key_value_heads": 2, "max_position_embeddings": 512}
TOWER = {**WIDTH, **HEADS, "image_size": SIZE, "patch_size": 8}
SIGLIP = {**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False}
QWEN_TOWER = {
    **WIDTH,
    "depth": 2,
    "num_heads": 4,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
PLAIN_IMAGES = {"size": {"height": SIZE, "width": SIZE}}
QWEN_IMAGES = {
    "patch_size": 8,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 256, "longest_edge": 1 << 20},
}
TURNS = (
    "{{ bos_token }}{% for m in messages %}BEGIN{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% else %}{{ c.text }}{% endif %}{% endfor %}END\n{% endfor %}"
    "{% if add_generation_prompt %}BEGINassistant\n{% endif %}"
)
"""Chat template; the words in capitals are those of a class."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a small model of one class is made of."""

    text: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    image: str = "<image>"
    """Token that stands for an image in the expanded prompt."""
    shown: str = ""
    """What the chat template writes for an image; empty: ``image``."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Named special tokens of the tokenizer."""
    special: Sequence[str] = ()
    """More special tokens."""
    images: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the image processor."""
    processor: Mapping[str, Any] = field(default_factory=dict)
    template: bool = True
    spread: float = 0.2
    """Standard deviation of random weights."""


def _qwen(tower: Mapping[str, Any], **text: Any) -> Made:
    return Made(
        text={**DECODER, "rope_parameters": ROPE, **text},
        vision={**QWEN_TOWER, **tower},
        image="<|image_pad|>",
        shown="<|vision_start|><|image_pad|><|vision_end|>",
        special=("<|vision_start|>", "<|vision_end|>", "<|video_pad|>"),
        images=QWEN_IMAGES,
    )


CLASSES: Mapping[str, Made] = {
    "gemma3": Made(
        text={**DECODER, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
        | {"layer_types": ["sliding_attention", "full_attention"]},
        vision=SIGLIP,
        # Tied, a word's own embedding would decide which word follows it.
        config={"mm_tokens_per_image": 4, "tie_word_embeddings": False},
        image="<image_soft_token>",
        shown="<start_of_image>",
        named={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        images=PLAIN_IMAGES,
        processor={"image_seq_length": 4},
    ),
    "paligemma": Made(
        text={**DECODER, "model_type": "gemma", "head_dim": 8},
        vision={**SIGLIP, "projection_dim": 32},
        config={"projection_dim": 32, "hidden_size": 32, "tie_word_embeddings": False},
        named={"image_token": "<image>"},
        images={**PLAIN_IMAGES, "image_seq_length": 16},
        template=False,
    ),
    "internvl": Made(
        text={**DECODER, "model_type": "qwen2"},
        vision={**TOWER, "image_size": [SIZE, SIZE], "patch_size": [8, 8]},
        config={"image_seq_length": 4},
        image="<IMG_CONTEXT>",
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        images=PLAIN_IMAGES,
        processor={"image_seq_length": 4},
    ),
    "smolvlm": Made(
        text={**DECODER, "model_type": "llama"},
        vision=TOWER,
        special=("<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
        images={"size": {"longest_edge": SIZE}, "max_image_size": {"longest_edge": SIZE}},
        processor={"image_seq_len": 4},
    ),
    "idefics3": Made(
        text={**DECODER, "model_type": "llama"},
        vision=TOWER,
        special=("<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
        images={"size": {"longest_edge": SIZE}, "max_image_size": {"longest_edge": SIZE}},
        processor={"image_seq_len": 4},
    ),
    "llava_next": Made(
        text={**DECODER, "model_type": "llama"},
        vision={**TOWER, "patch_size": 16, "model_type": "clip_vision_model"}
        | {"num_hidden_layers": 3, "projection_dim": 32},
        config={"image_grid_pinpoints": [[SIZE, 2 * SIZE], [2 * SIZE, SIZE]]},
        images={"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}},
        processor={
            "patch_size": 16,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    ),
    "llava_onevision": Made(
        text={**DECODER, "model_type": "qwen2"},
        vision={**SIGLIP, "patch_size": 16},
        config={"image_grid_pinpoints": [[SIZE, 2 * SIZE], [2 * SIZE, SIZE]]},
        special=("<video>",),
        images=PLAIN_IMAGES,
        processor={"num_image_tokens": 4, "vision_feature_select_strategy": "full"},
    ),
    "mistral3": Made(
        text={**DECODER, "model_type": "mistral", "head_dim": 8},
        vision={**TOWER, "model_type": "pixtral", "head_dim": 8},
        image="[IMG]",
        special=("[IMG_BREAK]", "[IMG_END]"),
        images={"size": {"longest_edge": SIZE}, "patch_size": 8},
        processor={"patch_size": 8, "spatial_merge_size": 2},
    ),
    "qwen2_vl": _qwen({"embed_dim": 32, "mlp_ratio": 2}),
    "qwen2_5_vl": _qwen({"window_size": 32, "fullatt_block_indexes": [1]}),
    "qwen3_vl": _qwen({"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}, head_dim=8),
    "qwen3_5": _qwen(
        {"num_position_embeddings": 16},
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        rope_parameters={**ROPE, "partial_rotary_factor": 1.0},
    ),
    "glm4v": Made(
        text={**DECODER, "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}},
        vision={**QWEN_TOWER, "image_size": SIZE},
        image="<|image|>",
        shown="<|begin_of_image|><|image|><|end_of_image|>",
        special=(
            *("<|begin_of_image|>", "<|end_of_image|>", "<|video|>"),
            *("<|begin_of_video|>", "<|end_of_video|>"),
        ),
        images=QWEN_IMAGES,
    ),
}
"""Model type -> what a small model of it is made of. ``llava`` has a family of its own."""

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<turn>", "<end_of_turn>")


def backend(words: Sequence[str], special: Sequence[str]) -> Any:
    """WordPiece tokenizer that knows ``words`` and special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    pieces = dict.fromkeys([*special, *words, "user", "assistant"])
    made = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##")
    return made


def byte_backend(words: Sequence[str], special: Sequence[str]) -> Any:
    """The same of bytes, which transformers makes of any tokenizer of Qwen3.5."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=[*special], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([f" {word} {word}" for word in (*words, "user", "assistant")], trainer)
    return made


def tokenizer(kind: str, words: Sequence[str], made: Made | None = None) -> Any:
    """Tokenizer that knows ``words``, the special tokens of a class and its chat template."""
    from transformers import PreTrainedTokenizerFast

    made = made or CLASSES[kind]
    special = [*dict.fromkeys([*SPECIAL, made.image, *made.named.values(), *made.special])]
    make = byte_backend if kind == "qwen3_5" else backend
    found = PreTrainedTokenizerFast(
        tokenizer_object=make(words, special),
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=dict(made.named)
        | {f"special_{i}_token": word for i, word in enumerate(special[4:])},
    )
    if made.template:
        names = {"BEGIN": "<turn>", "END": "<end_of_turn>", "IMAGE": made.shown or made.image}
        template = TURNS
        for name, word in names.items():
            template = template.replace(name, word)
        found.chat_template = template
    return found


def network(kind: str, words: Any, made: Made | None = None) -> Any:
    """A random network, the same at every call, that has the tokenizer ``words``.

    Its weights are large enough for all its parts to matter.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    made = made or CLASSES[kind]
    image = words.convert_tokens_to_ids(made.image)
    ids = {"pad_token_id": words.pad_token_id, "bos_token_id": words.bos_token_id}
    ids |= {"eos_token_id": words.eos_token_id}
    text = {**made.text, "vocab_size": len(words), **ids}
    config: Any = AutoConfig.for_model(
        kind, text_config=text, vision_config=dict(made.vision), **made.config
    )
    config.image_token_id = image
    torch.manual_seed(1)
    auto: Any = AutoModelForImageTextToText
    found = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, made.spread)
    return found


def write(
    folder: Path,
    kind: str,
    words: Sequence[str] | None = None,
    made: Made | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a model folder of a class, its weights in ``dtype``; its words are those of ``tiny`` or
    ``words``. ``made`` says what it is made of, if not what small models of the class are. A test
    that calls it is skipped where transformers is older than the family needs."""
    from transformers import AutoImageProcessor
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    needed = registry.FAMILIES.text("image_text_to_text", "TRANSFORMERS")
    if (error := too_old(f"a model of type {kind!r}", "transformers", needed)) is not None:
        import pytest  # which a benchmark does without

        pytest.skip(str(error))
    made = made or CLASSES[kind]
    known = tokenizer(kind, vocabulary() if words is None else words, made)
    network(kind, known, made).to(dtype).save_pretrained(folder)
    known.save_pretrained(folder)
    names = IMAGE_PROCESSOR_MAPPING_NAMES[kind]
    images = {"image_processor_type": names["torchvision"], **made.images}
    (folder / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")
    processor = {"processor_class": PROCESSOR_MAPPING_NAMES[kind], **made.processor}
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    AutoImageProcessor.from_pretrained(folder).save_pretrained(folder)
    return folder
