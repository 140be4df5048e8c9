"""Models of published shapes with random weights, for what asks how long, not how good."""

from __future__ import annotations

import json
from typing import Any

import torch

from tests.trainables.made_llava import words_tokenizer
from trainables import registry
from trainables.data.common import dataset as datasets
from trainables.model_contract import Model
from trainables.model_tools.tiny_pretraining.network import vocabulary
from trainables.models import blip, llava
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
SHAPES = ("tiny", "miss", *DECODERS)


def workload(
    shape: str, *, images: int, image_size: int | None = None, bits: BaseBits | None = None
) -> Workload:
    """A model of ``shape``: ``tiny`` as it ships; ``miss``, the 361M BLIP of MISS (480 px); or a
    CLIP ViT-L/14 (336 px) before a Llama-like decoder of 1.1 or 7 billion parameters, in bf16. It
    has the phantom questions about the first ``images`` images of each split, all for ``tiny``.
    ``bits`` say how the base is quantised."""
    if shape == "tiny":
        return Workload.load(WorkloadConfig(image_size=image_size, base_bits=bits))
    small = Workload.load(WorkloadConfig())
    torch.manual_seed(0)
    device = small.device
    model = _llava(shape, image_size, device) if shape in DECODERS else _miss(small.model)
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


def _miss(small: Model) -> Model:
    from transformers import BlipConfig, BlipForQuestionAnswering

    # The default range is for loading only.
    vision = {**preset("miss")["vision_config"], "initializer_range": 0.02}
    network = BlipForQuestionAnswering(BlipConfig(vision_config=vision))
    network.eval().requires_grad_(False)
    assert isinstance(small, blip.Blip)
    return blip.Blip(name="miss", digest="random", network=network, tokenizer=small.tokenizer)


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
