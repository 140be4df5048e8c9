"""Normalised images and position embeddings for the image encoders of CLIP and BLIP.

BLIP's image encoder normalises images by the same numbers and has the same embeddings as CLIP's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.errors import BadInput

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def pixels(images_USSC: NDArray[np.uint8] | None) -> Tensor:
    """Normalise images by the mean and standard deviation of CLIP's; fp32 of shape (U, 3, S, S).

    ``images_USSC`` is RGB from 0 to 255. Without images the result holds no pixels.
    """
    if images_USSC is None:
        return torch.empty(0, 3, 0, 0)
    pixels_UCSS = torch.from_numpy(images_USSC).permute(0, 3, 1, 2).float().div_(255)
    pixels_UCSS -= torch.tensor(MEAN).view(3, 1, 1)
    pixels_UCSS /= torch.tensor(DEVIATION).view(3, 1, 1)
    return pixels_UCSS


def check_size(image_size: int, patch_size: int) -> None:
    """Check that patches fill an image.

    Raises:
        BadInput: ``image_size`` is no multiple of ``patch_size``.
    """
    if image_size < patch_size or image_size % patch_size:
        below = max(image_size // patch_size, 1) * patch_size
        raise BadInput(
            f"--image-size {image_size} is no multiple of the model's patches of {patch_size} "
            f"pixels; {below} and {below + patch_size} are"
        )


@torch.no_grad()
def positions(embeddings: Any, image_size: int) -> Tensor:
    """Position embeddings of a CLIP or BLIP image encoder for images of another size.

    They are interpolated by the encoder's own method (bicubic); shape (1, 1 + patches, D).

    Raises:
        BadInput: patches do not fill an image of that size.
    """
    check_size(image_size, embeddings.patch_size)
    patches = (image_size // embeddings.patch_size) ** 2
    tokens_1TD = torch.empty(1, 1 + patches, embeddings.embed_dim)
    found: Tensor = embeddings.interpolate_pos_encoding(tokens_1TD, image_size, image_size)
    return found.reshape(1, 1 + patches, embeddings.embed_dim).contiguous()
