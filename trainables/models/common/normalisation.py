"""How a model's folder says that images are normalised, and images normalised so.

Only the numbers are read. Images have the size that the image encoder takes, and are resized to it
in one way for all models (``trainables.data.common.images``), whatever a folder says of sizes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.cache import hub
from trainables.errors import BadInput
from trainables.models.common import clip, weights_folder

FILE = "preprocessor_config.json"
Pixels = Callable[[NDArray[np.uint8] | None], Tensor]
"""Normalises RGB images of 0 to 255, of shape (U, S, S, 3); (U, 3, S, S)."""


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Numbers by which images are normalised."""

    mean: tuple[float, ...] = clip.MEAN
    """Mean of each colour, which is subtracted."""
    deviation: tuple[float, ...] = clip.DEVIATION
    """Standard deviation of each colour, by which the difference is divided."""
    scale: float = 1 / 255
    """Number by which the values of an image, from 0 to 255, are multiplied before."""

    @property
    def off_default(self) -> str:
        """Text of the numbers, for a digest; empty if they are CLIP's."""
        return "" if self == CLIP else f"{self.mean} {self.deviation} {self.scale}"

    def pixels(self, images_USSC: NDArray[np.uint8] | None) -> Tensor:
        """Normalise RGB images of 0 to 255; fp32 of shape (U, 3, S, S). Without images the result
        holds no pixels."""
        if images_USSC is None:
            return torch.empty(0, 3, 0, 0)
        pixels_UCSS = torch.from_numpy(images_USSC).permute(0, 3, 1, 2).float().mul_(self.scale)
        pixels_UCSS -= torch.tensor(self.mean).view(3, 1, 1)
        pixels_UCSS /= torch.tensor(self.deviation).view(3, 1, 1)
        return pixels_UCSS.contiguous()


CLIP = Normalisation()
"""Normalisation of CLIP and BLIP, and of a folder that says nothing of it."""


def of_folder(path: Path) -> Normalisation:
    """Normalisation of the folder of a BLIP, BLIP-2, InstructBLIP or LLaVA. It is CLIP's if the
    folder has no image processor.

    Raises:
        BadInput: a file is damaged, or a number cannot be.
    """
    settings = _settings(path)
    usual = {
        "do_rescale": True,
        "rescale_factor": CLIP.scale,
        "do_normalize": True,
        "image_mean": CLIP.mean,
        "image_std": CLIP.deviation,
    }
    return of_processor(SimpleNamespace(**usual | settings), hub.name_of(path))


def _settings(path: Path) -> dict[str, Any]:
    """Settings of a folder's image processor, by name; empty if it has none. transformers writes
    them into ``processor_config.json``, and before its version 5 into a file of their own.

    Raises:
        BadInput: a file is damaged.
    """
    found: Any = {}
    for file, part in (("processor_config.json", "image_processor"), (FILE, None)):
        if not (path / file).is_file():
            continue
        with weights_folder.reading(f"{path / file} can't be read"):
            content = json.loads((path / file).read_text(encoding="utf-8"))
            found = content if part is None else content.get(part)
        if found:
            break
    if not isinstance(found or {}, dict):
        raise BadInput(f"{path / file} must hold an object, not {found!r}")
    return found or {}


def of_processor(images: Any, called: str) -> Normalisation:
    """Normalisation of an image processor of transformers; ``called`` is the model's name.

    Raises:
        BadInput: one of its numbers cannot be.
    """
    mean, deviation, scale = [0.0] * 3, [1.0] * 3, 1.0
    where = f"of {called}, in preprocessor_config.json,"
    if images.do_rescale:
        scale = images.rescale_factor
        if not _is_number(scale) or scale <= 0:
            raise BadInput(f"rescale_factor {where} must be above 0, not {scale!r}")
    if images.do_normalize:
        mean, deviation = _of_colours(images.image_mean), _of_colours(images.image_std)
        if not mean:
            raise BadInput(
                f"image_mean {where} must be a number for each of 3 colours, not "
                f"{images.image_mean!r}"
            )
        if not deviation or min(deviation) <= 0:
            raise BadInput(
                f"image_std {where} must be a number above 0 for each of 3 colours, not "
                f"{images.image_std!r}"
            )
    return Normalisation(mean=tuple(mean), deviation=tuple(deviation), scale=scale)


def pixels_of(normalisation: Normalisation) -> Pixels:
    """The function that normalises so. CLIP's divides by 255, which is not to the bit what
    multiplying by 1 / 255 is, and losses of studies of these models are of the former."""
    return clip.pixels if normalisation == CLIP else normalisation.pixels


def _of_colours(found: Any) -> list[float]:
    """A number for each colour, of three or of one for all; empty if it is neither."""
    numbers = [found] * 3 if _is_number(found) else found
    right = isinstance(numbers, list | tuple) and len(numbers) == 3
    return [*map(float, numbers)] if right and all(map(_is_number, numbers)) else []


def _is_number(value: object) -> bool:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and math.isfinite(value)  # type: ignore[arg-type]
