"""Small random LLaVAs: in memory, as transformers has them, and as a folder in their layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from trainables.model_tools.tiny_pretraining.network import vocabulary
from trainables.models.common.llava_network import LlavaNetwork, Parts
from trainables.models.llava import Llava


def published(tokenizer: Any, decoder: str = "llama", **settings: Any) -> LlavaNetwork:
    """A random network, the same at every call; two queries share a key.

    Its weights are large enough for all its parts to matter: with the usual 0.02 every answer would
    be as likely as any other, whatever the image. ``settings`` are of its configuration.
    """
    from transformers import LlavaConfig

    width = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    config = LlavaConfig.from_dict(
        {
            "text_config": {
                **width,
                "model_type": decoder,
                "num_hidden_layers": 2,
                "num_key_value_heads": 2,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": 256,
                "initializer_range": 0.2,
            },
            "vision_config": {
                **width,
                "num_hidden_layers": 3,
                "image_size": 32,
                "patch_size": 16,
                "projection_dim": 32,
                "initializer_factor": 5.0,
            },
            "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
            **settings,
        }
    )
    torch.manual_seed(0)
    return LlavaNetwork(config)


def words_tokenizer(words: Sequence[str], *, image: bool = True) -> Any:
    """WordPiece; no token but the end for padding, as LLaMA has it; the image's is the last."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<image>"] if image else []
    pieces = dict.fromkeys(["<unk>", "<s>", "</s>", *words, "user", ":", "assistant", *special])
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=special,
    )


def small_llava(words: Sequence[str], decoder: str = "llama", **settings: Any) -> Llava:
    """Small model of the LLaVA family."""
    tokenizer = words_tokenizer(words)
    network = Parts(published(tokenizer, decoder, **settings)).eval().requires_grad_(False)
    return Llava(name="small", digest="0" * 64, network=network, tokenizer=tokenizer)


def write(
    folder: Path, decoder: str = "llama", dtype: torch.dtype = torch.float32, **settings: Any
) -> Path:
    """A model folder, its weights in ``dtype``; its words are those of ``tiny``, so that nothing is
    unknown."""
    tokenizer = words_tokenizer(vocabulary())
    network = published(tokenizer, decoder, **settings)
    network.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    vision: Any = network.config.vision_config
    images = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": vision.image_size},
        "crop_size": {"height": vision.image_size, "width": vision.image_size},
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    for name, content in (("preprocessor", images), ("processor", processor)):
        (folder / f"{name}_config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


NAMES = {
    "llava-hf": {
        "lm_head.": "language_model.lm_head.",
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    },
    "transformers 4.52": {"model.vision_tower.": "model.vision_tower.vision_model."},
    "transformers 5": {},
}
"""Who published the weights -> how names in the network begin -> how they begin in the folder."""


def rename(folder: Path, names: str, *, files: int = 1) -> Path:
    """Give the weights of a folder that ``write`` made the names of ``NAMES``, in so many files."""
    named = {}
    for name, weight in LlavaNetwork.from_pretrained(folder).state_dict().items():
        begin = next((new for new in NAMES[names] if name.startswith(new)), "")
        named[NAMES[names].get(begin, "") + name.removeprefix(begin)] = weight.contiguous()
    if names != "transformers 5":
        (beside,) = (name for name in named if name.endswith(".class_embedding"))
        named[beside.replace("class_embedding", "position_ids")] = torch.arange(5)[None]
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{i % files + 1:05d}.safetensors" for i, name in enumerate(named)}
    for place in set(places.values()):
        some = {name: weight for name, weight in named.items() if places[name] == place}
        save_file(some, folder / (place if files > 1 else "model.safetensors"), {"format": "pt"})
    if files > 1:
        index = json.dumps({"metadata": {}, "weight_map": places})
        (folder / "model.safetensors.index.json").write_text(index)
    return folder
