"""From LLaVA's own layout to transformers': ``python -m trainables.models.convert_llava``.

LLaVA-Med v1.5 (microsoft/llava-med-v1.5-mistral-7b) and LLaVA's own checkpoints are a language
model's, with more in it: ``model.mm_projector.*`` beside ``model.layers.*``, and in ``config.json``
the name of a CLIP (``mm_vision_tower``). What this writes is what transformers, peft and this
project read. Weights stay in the type that they have; a shard is in memory at a time.

The image encoder is the one in the checkpoint, if there is one: LLaVA-Med v1.5 has it. (Microsoft's
own code passes over it and loads OpenAI's, see github.com/microsoft/LLaVA-Med/issues/105; that is
``--vision``.)
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables import hub
from trainables.errors import BadInput, unknown

if TYPE_CHECKING:
    from torch import Tensor

IMAGE = "<image>"
PROJECTORS = ("linear", "mlp2x_gelu")
SELECTED = {"patch": "default", "cls_patch": "full"}
"""Which of a tower's tokens are read, by their names there and in transformers."""
RENAMED = (
    (r"model\.mm_projector\.(?=weight|bias)", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"model\.(?=layers\.|embed_tokens\.|norm\.)", "model.language_model."),
)
"""The beginning of a weight's name there -> here."""
TOWER = "model.vision_tower."
TOWERS = (
    r"(model\.)?(vision_tower\.)?(vision_model\.)?"
    r"(?=(embeddings|pre_layrnorm|encoder|post_layernorm)\.)"
)
"""The beginning of a weight's name in an image encoder: by itself, in a CLIP, in a LLaVA."""
WORDS = ("model.language_model.embed_tokens.weight", "lm_head.weight")
"""They have a row for each token."""


def convert(folder: Path, out: Path, vision: Path | None) -> None:
    """Write the model of ``folder`` into ``out`` as ``transformers.LlavaForConditionalGeneration``.

    Args:
        folder: as published: ``config.json``, safetensors, tokenizer.
        out: is made; files of the same names are replaced.
        vision: folder of a CLIP whose image encoder is taken instead of the checkpoint's.

    Raises:
        BadInput: it is another layout, or of parts that can't be had or read.
    """
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, LlavaConfig

    said = _json(folder / "config.json")
    shards = sorted(folder.glob("*.safetensors"))
    if "mm_vision_tower" not in said or not shards:
        lacks = "mm_vision_tower in its config.json" if shards else "safetensors"
        raise BadInput(f"{folder} is not in the layout of LLaVA's authors: it has no {lacks}")
    # With a configuration of another kind: it would warn that it does not know this one.
    tokenizer = AutoTokenizer.from_pretrained(folder, config=LlavaConfig(), local_files_only=True)
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "dtype": said.get("dtype", said.get("torch_dtype")),
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE),
        **_connection(said),
        "text_config": _text(said, tokens=len(tokenizer)),
        "vision_config": _vision(folder, said, vision),
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


def _text(said: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """What is said of the language model, which is all that is not said of LLaVA's parts."""
    kind = {"LlavaMistralForCausalLM": "mistral", "LlavaLlamaForCausalLM": "llama"}
    (architecture,) = said["architectures"]
    if architecture not in kind:
        raise unknown("architecture", architecture, kind)
    others = ("mm_", "tune_mm_", "image_", "freeze_mm_", "use_mm_", "tokenizer_")
    kept = {k: v for k, v in said.items() if not k.startswith(others)}
    kept.pop("architectures")
    return {**kept, "model_type": kind[architecture], "vocab_size": tokens}


def _vision(folder: Path, said: Mapping[str, Any], vision: Path | None) -> dict[str, Any]:
    """The configuration of the image encoder: its folder's, or by the shapes of its weights."""
    if vision is not None:
        found = _json(vision / "config.json")
        return {**found.get("vision_config", found), "model_type": "clip_vision_model"}
    name = said["mm_vision_tower"]
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
        "num_attention_heads": width // 64,  # as all of OpenAI's
        "patch_size": patch,
        "image_size": patch * math.isqrt(positions - 1),
    }


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Of the weights of the image encoder, without reading them."""
    from safetensors import safe_open

    found: dict[str, list[int]] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # it is no dict
                if (new := _renamed(name)).startswith(TOWER):
                    found[new.removeprefix(TOWER)] = opened.get_slice(name).get_shape()
    return found


def _connection(said: Mapping[str, Any]) -> dict[str, Any]:
    """Which features are read, and what they go through."""
    projector = said.get("mm_projector_type", "linear")
    if projector not in PROJECTORS:
        raise unknown("mm_projector_type", projector, PROJECTORS)
    return {
        "mm_projector_type": projector,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": said.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": SELECTED[said.get("mm_vision_select_feature", "patch")],
    }


def _weights(shards: list[Path], vision: Path | None, tokens: int) -> Iterator[dict[str, Tensor]]:
    """Shard by shard, under their new names; ``tokens`` rows of words."""
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
    for pattern, new in RENAMED:
        renamed, count = re.subn(f"^{pattern}", new, name)
        if count:
            return renamed
    return name


def _with_rows(weight_VD: Tensor, tokens: int) -> Tensor:
    """More rows, if need be, for tokens that are never said: as the mean of all, one is never the
    most likely."""
    import torch

    mean_1D = weight_VD.float().mean(0, keepdim=True).to(weight_VD.dtype)
    return torch.cat((weight_VD, mean_1D.expand(max(0, tokens - len(weight_VD)), -1)))


def _json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} can't be read ({error})") from error
    return found


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m trainables.models.convert_llava", description=__doc__.splitlines()[0]
    )
    parser.add_argument("model", metavar="DIR", help="as published, or hub:NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--vision", metavar="DIR", help="a CLIP, or hub:NAME [the checkpoint's]")
    given = parser.parse_args(arguments)
    try:
        vision = hub.folder(given.vision, "model") if given.vision else None
        convert(hub.folder(given.model, "model"), given.out, vision)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.out}: use it with --model {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
