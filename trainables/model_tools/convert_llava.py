"""Convert LLaVA's own layout to transformers': ``python -m trainables.model_tools.convert_llava``.

The checkpoints of LLaVA-Med v1.5 (microsoft/llava-med-v1.5-mistral-7b) and of LLaVA's authors are
those of a language model with additions: weights ``model.mm_projector.*`` beside
``model.layers.*``, and in ``config.json`` the name of a CLIP (``mm_vision_tower``). The command
writes the layout that transformers, peft and this project read. Weights keep their type, and one
shard at a time is in memory.

The image encoder is the one in the checkpoint, if it holds one, as that of LLaVA-Med v1.5 does.
(Microsoft's own code ignores it and loads OpenAI's, see github.com/microsoft/LLaVA-Med/issues/105;
give that one with ``--vision`` to do the same.)
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainables import stored_json
from trainables.cache import hub
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse

if TYPE_CHECKING:
    from torch import Tensor

IMAGE = "<image>"
SELECTED = {"patch": "default", "cls_patch": "full"}
"""LLaVA's name for the image tokens that are read -> transformers' name for them."""
DECODERS = {"LlavaMistralForCausalLM": "mistral", "LlavaLlamaForCausalLM": "llama"}
"""LLaVA's class -> transformers' name for the language model in it."""
RENAMED = (
    (r"model\.mm_projector\.(?=weight|bias)", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"model\.(?=layers\.|embed_tokens\.|norm\.)", "model.language_model."),
)
"""Pattern of a weight's name's beginning in LLaVA's layout -> its beginning in transformers'."""
TOWER = "model.vision_tower."
TOWERS = (
    r"(model\.)?(vision_tower\.)?(vision_model\.)?"
    r"(?=(embeddings|pre_layrnorm|encoder|post_layernorm)\.)"
)
"""Pattern of the beginning of a weight's name in an image encoder, alone, in a CLIP or a LLaVA."""
WORDS = ("model.language_model.embed_tokens.weight", "lm_head.weight")
"""Names of the weights that have a row for each token of the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class LlavaSettings:
    """Settings of LLaVA's own parts in the ``config.json`` of its authors."""

    architectures: tuple[Literal["LlavaMistralForCausalLM", "LlavaLlamaForCausalLM"]]
    mm_vision_tower: str
    """Name of the image encoder, or its folder."""
    mm_projector_type: Literal["linear", "mlp2x_gelu"] = "linear"
    """Layers that map the features of images."""
    mm_vision_select_layer: int = -2
    """Layer of the image encoder whose features are read."""
    mm_vision_select_feature: Literal["patch", "cls_patch"] = "patch"


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What to convert, and where to. Every field is an option of the command."""

    model: str = option(positional=True, metavar="DIR", help="as published, or hub:NAME")
    out: Path = option(required=True, metavar="DIR")
    vision: str | None = option(
        None, metavar="DIR", help="a CLIP, or hub:NAME", default="the checkpoint's"
    )


def convert(folder: Path, out: Path, vision: Path | None) -> None:
    """Write the model of ``folder`` into ``out`` as ``transformers.LlavaForConditionalGeneration``.

    Args:
        folder: the published files: ``config.json``, safetensors, tokenizer.
        out: the folder to write, made if needed; files of the same names are replaced.
        vision: folder of a CLIP whose image encoder replaces the checkpoint's.

    Raises:
        BadInput: the folder has another layout, or parts that are not supported or can't be read.
    """
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, LlavaConfig

    from trainables.models.common import weights_folder

    file = folder / "config.json"
    source: dict[str, Any] = stored_json.read(dict, file, versions=None)
    shards = sorted(folder.glob("*.safetensors"))
    if "mm_vision_tower" not in source or not shards:
        lacks = "mm_vision_tower in its config.json" if shards else "safetensors"
        raise BadInput(f"{folder} is not in the layout of LLaVA's authors: it has no {lacks}")
    theirs = stored_json.parse(LlavaSettings, source, str(file))
    weights_folder.needs_tokenizer(folder, "tokenizer.json", "tokenizer.model")
    # A LlavaConfig is given, since transformers would warn about the folder's unknown one.
    tokenizer = AutoTokenizer.from_pretrained(folder, config=LlavaConfig(), local_files_only=True)
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "dtype": source.get("dtype", source.get("torch_dtype")),
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE),
        "mm_projector_type": theirs.mm_projector_type,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": theirs.mm_vision_select_layer,
        "vision_feature_select_strategy": SELECTED[theirs.mm_vision_select_feature],
        "text_config": _text(source, DECODERS[theirs.architectures[0]], tokens=len(tokenizer)),
        "vision_config": _vision(folder, theirs.mm_vision_tower, vision),
    }
    out.mkdir(parents=True, exist_ok=True)
    places: dict[str, str] = {}
    for number, weights in enumerate(_weights(shards, vision, tokens=len(tokenizer)), start=1):
        name = f"model-{number:05d}.safetensors"
        save_file(weights, out / name, metadata={"format": "pt"})
        places |= dict.fromkeys(weights, name)
    index = {"metadata": {}, "weight_map": places}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(out)


def _text(source: Mapping[str, Any], decoder: str, tokens: int) -> dict[str, Any]:
    """Configuration of the language model: everything but the settings of LLaVA's own parts."""
    others = ("mm_", "tune_mm_", "image_", "freeze_mm_", "use_mm_", "tokenizer_")
    kept = {k: v for k, v in source.items() if not k.startswith(others)}
    kept.pop("architectures")
    return {**kept, "model_type": decoder, "vocab_size": tokens}


def _vision(folder: Path, name: str, vision: Path | None) -> dict[str, Any]:
    """Configuration of the image encoder, from its own folder or from the shapes of its weights;
    ``name`` is that of ``LlavaSettings``."""
    if vision is not None:
        found: dict[str, Any] = stored_json.read(dict, vision / "config.json", versions=None)
        return {**found.get("vision_config", found), "model_type": "clip_vision_model"}
    shapes = _shapes(folder)
    if not shapes or not name.startswith("openai/"):
        lacks = "of another maker, whose layers may differ" if shapes else "and does not hold it"
        raise BadInput(
            f"{folder} names the image encoder {name}, {lacks}; give its folder with --vision, or "
            f"--vision hub:{name}"
        )
    width, _, patch, _ = shapes["embeddings.patch_embedding.weight"]
    positions, _ = shapes["embeddings.position_embedding.weight"]
    return {
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": sum(name.endswith("mlp.fc1.weight") for name in shapes),
        "num_attention_heads": width // 64,  # as in all of OpenAI's CLIPs
        "patch_size": patch,
        "image_size": patch * math.isqrt(positions - 1),
    }


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes of the image encoder's weights, found without reading the weights."""
    from safetensors import safe_open

    found: dict[str, list[int]] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # safetensors' handle is no dict
                if (new := _renamed(name)).startswith(TOWER):
                    found[new.removeprefix(TOWER)] = opened.get_slice(name).get_shape()
    return found


def _weights(shards: list[Path], vision: Path | None, tokens: int) -> Iterator[dict[str, Tensor]]:
    """Yield the weights shard by shard, under their new names and with ``tokens`` rows of words."""
    from safetensors.torch import load_file

    for shard in shards:
        found = {_renamed(name): weight for name, weight in load_file(shard).items()}
        for name in WORDS:
            if name in found:
                found[name] = _with_rows(found[name], tokens)
        yield {
            name: weight
            for name, weight in found.items()
            if not (name.endswith("position_ids") or (vision and name.startswith(TOWER)))
        }
    if vision is None:
        return
    lacking = True
    for shard in sorted(vision.glob("*.safetensors")):
        tower = {
            re.sub(f"^{TOWERS}", TOWER, name): weight
            for name, weight in load_file(shard).items()
            if re.match(TOWERS, name) and not name.endswith("position_ids")
        }
        lacking &= not tower
        yield tower
    if lacking:
        raise BadInput(f"--vision {vision} holds no image encoder of a CLIP as safetensors")


def _renamed(name: str) -> str:
    """A weight's name in transformers' layout."""
    for pattern, new in RENAMED:
        renamed, count = re.subn(f"^{pattern}", new, name)
        if count:
            return renamed
    return name


def _with_rows(weight_VD: Tensor, tokens: int) -> Tensor:
    """Add rows, if need be, for tokens that are never generated.

    The new rows are the mean of all others, so that their tokens are never the most likely.
    """
    import torch

    mean_1D = weight_VD.float().mean(0, keepdim=True).to(weight_VD.dtype)
    return torch.cat((weight_VD, mean_1D.expand(max(0, tokens - len(weight_VD)), -1)))


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for bad input."""
    parser = Parser(
        prog="python -m trainables.model_tools.convert_llava", description=__doc__.splitlines()[0]
    )
    given = parse(parser, arguments, ConvertConfig)
    vision = hub.local_folder(given.vision, "model") if given.vision else None
    convert(hub.local_folder(given.model, "model"), given.out, vision)
    print(f"{given.out}: use it with --model {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
