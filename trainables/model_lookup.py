"""Finds the family that a model belongs to, by the ``config.json`` in its folder."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from trainables import registry
from trainables.cache import hub
from trainables.errors import BadInput, too_old, unknown
from trainables.models.common import quantisation

if TYPE_CHECKING:
    from trainables.model_contract import Skeleton

TINY = Path(__file__).parent / "models" / "tiny"
GENERIC = "image_text_to_text"
"""Family of models whose ``model_type`` no family of its own knows."""
REFUSED = {
    "mllama": "its decoder reads the image by cross-attention, not among the tokens",
    "gemma4": "its layers clip what they are given (ClippableLinear), and peft refuses them",
}
"""Model type that ``GENERIC`` can't do -> why."""


def family_of(model: str) -> tuple[str, Path]:
    """Family (a file of ``trainables.models``) of a model and the folder of its weights.

    Raises:
        BadInput: it is neither a shipped model nor a folder with a ``config.json`` of a known
            family or of a class that ``GENERIC`` can do; or a file of it is a pipe or a device,
            from which one would read for ever.
    """
    path = TINY if model == "tiny" else hub.local_folder(model, "model")
    file = path / "config.json"
    if path.name in registry.presets() and not path.exists():  # a launch makes paths absolute
        raise BadInput(
            f"model {path.name!r} is a preset without weights, for study.plan to count; "
            "give a folder that has some"
        )
    if (path / "open_clip_config.json").is_file():
        raise BadInput(
            f"{path} is an open_clip model, which compares images with texts and writes no answers"
        )
    if not file.is_file():
        raise BadInput(
            f"unknown model {model!r}: give 'tiny', a folder that has a config.json, or hub:NAME"
        )
    for found in path.glob("*"):
        if found.exists() and not (found.is_file() or found.is_dir()):
            raise BadInput(
                f"{found} is no regular file, as a pipe is none; give back the model's file"
            )
    return _family_in(file), path


def _family_in(file: Path) -> str:
    """Family of the model that a ``config.json`` describes.

    Raises:
        BadInput: it can't be read, is of no family and of no class that ``GENERIC`` can do, or
            needs a newer transformers than is installed.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file} can't be read ({error}); give back the model's file") from error
    if not isinstance(config, dict):
        raise BadInput(f"{file} is no JSON object; give back the model's file")
    if "mm_vision_tower" in config:
        raise BadInput(
            f"{file.parent} is in the layout of LLaVA's authors; convert it: "
            f"python -m trainables.model_tools.convert_llava {file.parent} --out DIR"
        )
    family = str(config.get("model_type"))
    file_name = family.replace("-", "_")  # as in blip-2
    if file_name in registry.FAMILIES.names():
        return _installed(file_name, family)
    if family in REFUSED:
        raise BadInput(f"models of type {family!r} can't be tuned here: {REFUSED[family]}")
    _installed(GENERIC, family)
    if family not in _image_text_to_text():
        names = (name.replace("_", "-") for name in registry.FAMILIES.names() if name != GENERIC)
        known = ", ".join(names)
        raise BadInput(
            f"{file} is of model_type {family!r}; there are: {known}, and what transformers' "
            "AutoModelForImageTextToText loads"
        )
    return GENERIC


def _installed(name: str, model_type: str) -> str:
    """The name of a family for whose models the installed transformers is new enough.

    Raises:
        BadInput: it is older than ``TRANSFORMERS`` of the family's file.
    """
    oldest = registry.FAMILIES.text(name, "TRANSFORMERS")
    error = too_old(f"a model of type {model_type!r}", "transformers", oldest) if oldest else None
    if error is not None:
        raise error
    return name


@cache
def _image_text_to_text() -> tuple[str, ...]:
    """Model types that transformers' ``AutoModelForImageTextToText`` loads. They are read from its
    source, as importing it takes seconds."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    text = source.read_text(encoding="utf-8")
    _, _, after = text.partition("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES = OrderedDict(")
    return tuple(re.findall(r'^ +\("([^"]+)",', after.partition("\n)\n")[0], re.MULTILINE))


def skeleton_of(
    model: str,
    image_size: int | None = None,
    precision: str = "fp32",
    base_bits: quantisation.BaseBits | None = None,
) -> Skeleton:
    """Structure of a preset, of ``tiny`` or of a folder's model, without weights; quantised, if
    there are ``base_bits``.

    With ``image_size`` it is for images of that size instead of the model's own. Its tensors have
    the types in which the family holds weights for trials in ``precision``.

    Raises:
        BadInput: there is no such preset, folder or model, or nothing in it can be quantised.
    """
    presets = registry.presets()
    if model == "tiny" or model.startswith(hub.PREFIX) or Path(model, "config.json").is_file():
        family, source = family_of(model)
    elif model in presets:
        source = presets[model]
        family = _family_in(source)
    else:
        raise unknown("model", model, ("tiny", *presets, "a folder that has a config.json"))
    found: Skeleton = registry.FAMILIES.find(family).skeleton(source, image_size, precision)
    if base_bits is not None:
        quantisation.quantise(found, base_bits)
    return found
