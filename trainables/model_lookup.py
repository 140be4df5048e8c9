"""Finds the family that a model belongs to, by the ``config.json`` in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trainables import registry
from trainables.cache import hub
from trainables.errors import BadInput, unknown

if TYPE_CHECKING:
    from trainables.model_contract import Skeleton

TINY = Path(__file__).parent / "models" / "tiny"


def family_of(model: str) -> tuple[str, Path]:
    """Family (a file of ``trainables.models``) of a model and the folder of its weights.

    Raises:
        BadInput: it is neither a shipped model nor a folder with a ``config.json`` of a known
            family.
    """
    path = TINY if model == "tiny" else hub.local_folder(model, "model")
    file = path / "config.json"
    if model in registry.presets() and not file.is_file():
        raise BadInput(
            f"model {model!r} is a preset without weights, for study.plan to count; "
            "give a folder that has some"
        )
    if not file.is_file():
        raise BadInput(
            f"unknown model {model!r}: give 'tiny', a folder that has a config.json, or hub:NAME"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file} can't be read ({error}); give back the model's file") from error
    if not isinstance(config, dict):
        raise BadInput(f"{file} is no JSON object; give back the model's file")
    if "mm_vision_tower" in config:
        raise BadInput(
            f"{path} is in the layout of LLaVA's authors; convert it: "
            f"python -m trainables.model_tools.convert_llava {model} --out DIR"
        )
    family = str(config.get("model_type"))
    known = registry.FAMILIES.names()
    if family not in known:
        raise BadInput(f"{file} is of family {family!r}; there are: {', '.join(known)}")
    return family, path


def skeleton_of(model: str, image_size: int | None = None, precision: str = "fp32") -> Skeleton:
    """Structure of a preset, of ``tiny`` or of a folder's model, without weights.

    With ``image_size`` it is for images of that size instead of the model's own. Its tensors have
    the types in which the family holds weights for trials in ``precision``.

    Raises:
        BadInput: there is no such preset, folder or model.
    """
    presets = registry.presets()
    source: str | Path = model
    if model == "tiny" or model.startswith(hub.PREFIX) or Path(model, "config.json").is_file():
        family, source = family_of(model)
    elif model in presets:
        family = presets[model]
    else:
        raise unknown("model", model, ("tiny", *presets, "a folder that has a config.json"))
    found: Skeleton = registry.FAMILIES.find(family).skeleton(source, image_size, precision)
    return found
