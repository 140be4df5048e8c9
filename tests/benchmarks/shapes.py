"""Models of published shapes with random weights, for what asks how long, not how good."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tests.trainables import made_image_text
from tests.trainables.made_image_text import CLASSES, Made
from tests.trainables.made_llava import words_tokenizer
from trainables import registry
from trainables.data.common import dataset as datasets
from trainables.model_contract import Model
from trainables.model_tools.tiny_pretraining.network import vocabulary
from trainables.models import blip, image_text_to_text, llava
from trainables.models.common import quantisation
from trainables.models.common.llava_network import LlavaNetwork, Parts
from trainables.models.common.quantisation import BaseBits
from trainables.workload import Workload, WorkloadConfig


def preset(name: str) -> dict[str, Any]:
    """Configuration of a preset."""
    found: dict[str, Any] = json.loads(registry.presets()[name].read_text(encoding="utf-8"))
    del found["preset"]
    return found


DECODERS: dict[str, Any] = {
    "llava-1b": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "llava-7b": preset("llava-med-v1.5")["text_config"],
}
"""TinyLlama-1.1B's shape, eight queries to a key, and LLaVA-Med v1.5's Mistral-7B."""
PIXELS = 224
"""Pixels a side of an image of the shapes below."""
MADE: Mapping[str, tuple[str, Made]] = {
    "qwen-130m": (
        "qwen2_5_vl",
        replace(
            CLASSES["qwen2_5_vl"],
            text={
                "hidden_size": 768,
                "intermediate_size": 2048,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "rope_parameters": {**made_image_text.ROPE, "mrope_section": [8, 12, 12]},
            },
            vision={
                "hidden_size": 640,
                "intermediate_size": 1728,
                "depth": 12,
                "num_heads": 8,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "out_hidden_size": 768,
                "window_size": 112,
                "fullatt_block_indexes": [2, 5, 8, 11],
            },
            images={**made_image_text.QWEN_IMAGES, "patch_size": 14},
            spread=0.02,
        ),
    ),
    "gemma-190m": (
        "gemma3",
        replace(
            CLASSES["gemma3"],
            text={
                "hidden_size": 640,
                "intermediate_size": 2048,
                "num_hidden_layers": 18,
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "head_dim": 256,
                "query_pre_attn_scalar": 256,
                "sliding_window": 512,
                "max_position_embeddings": 4096,
            },
            vision={
                "model_type": "siglip_vision_model",
                "vision_use_head": False,
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "image_size": PIXELS,
                "patch_size": 16,
            },
            config={"mm_tokens_per_image": 49},
            images={"size": {"height": PIXELS, "width": PIXELS}},
            processor={"image_seq_length": 49},
            spread=0.02,
        ),
    ),
}
"""Class and sizes of a Qwen2.5-VL with 64 tokens an image, and of a SigLIP-base before a decoder as
wide and deep as Gemma 3 270M's, with 49 tokens an image."""
SHAPES = ("tiny", "miss", *DECODERS, *MADE)


def workload(
    shape: str, *, images: int, image_size: int | None = None, bits: BaseBits | None = None
) -> Workload:
    """A model of ``shape``: ``tiny`` as it ships; ``miss``, the 361M BLIP of MISS (480 px); a CLIP
    ViT-L/14 (336 px) before a Llama-like decoder of 1.1 or 7 billion parameters, in bf16; or one of
    ``MADE``, in bf16. It has the phantom questions about the first ``images`` images of each split,
    all for ``tiny``. ``bits`` say how the base is quantised."""
    if shape == "tiny":
        return Workload.load(WorkloadConfig(image_size=image_size, base_bits=bits))
    small = Workload.load(WorkloadConfig())
    torch.manual_seed(0)
    device = small.device
    if shape in MADE:
        model = _image_text(shape, image_size)
    else:
        model = (
            _llava(shape, image_size, device) if shape in DECODERS else _miss(small.model, device)
        )
    if bits is not None:
        quantisation.quantise(model, bits, device)
    model.network.to(device)
    splits = small.dataset.splits()
    for split, examples in splits.items():
        first = sorted({example.image_id for example in examples})[:images]
        splits[split] = tuple(example for example in examples if example.image_id in first)
    data = small.dataset
    some = datasets.seal(
        name=data.name, description=data.description, contents=data.contents, **splits
    )
    return Workload.from_parts(model, some, device, None)


def _miss(small: Model, device: torch.device) -> Model:
    from transformers import BlipConfig, BlipForQuestionAnswering

    # The default range is for loading only.
    vision = {**preset("miss")["vision_config"], "initializer_range": 0.02}
    with device:
        network = BlipForQuestionAnswering(BlipConfig(vision_config=vision))
    network.eval().requires_grad_(False)
    assert isinstance(small, blip.Blip)
    return blip.Blip(name="miss", digest="random", network=network, tokenizer=small.tokenizer)


def _image_text(shape: str, image_size: int | None) -> Model:
    kind, made = MADE[shape]
    with TemporaryDirectory() as folder:
        path = Path(folder) / shape
        made_image_text.write(path, kind, vocabulary(), made, torch.bfloat16)
        size = image_size or (None if kind == "gemma3" else PIXELS)
        return image_text_to_text.load(path, size, "bf16")


def _llava(shape: str, image_size: int | None, device: torch.device) -> Model:
    from transformers import LlavaConfig

    tokenizer = words_tokenizer(vocabulary())
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig.from_dict(
        {
            **preset("llava-med-v1.5"),
            "text_config": DECODERS[shape],
            "image_token_index": image,
        }
    )
    vision: Any = config.vision_config
    vision.image_size = image_size or vision.image_size
    with device:  # a GPU draws 7 billion numbers in no time
        made: Any = LlavaNetwork
        network = made._from_config(config, dtype=torch.bfloat16)
    parts = Parts(network).eval().requires_grad_(False)
    return llava.Llava(name=shape, digest="random", network=parts, tokenizer=tokenizer)
