"""Images as CLIP's towers take them, and BLIP's, whose processors use the same numbers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def pixels(images_USSC: NDArray[np.uint8] | None) -> Tensor:
    """Shape (U, 3, S, S), fp32: RGB of 0 to 255 less the mean of CLIP's images, by their deviation.
    Without images there are no pixels."""
    if images_USSC is None:
        return torch.empty(0, 3, 0, 0)
    pixels_UCSS = torch.from_numpy(images_USSC).permute(0, 3, 1, 2).float().div_(255)
    pixels_UCSS -= torch.tensor(MEAN).view(3, 1, 1)
    pixels_UCSS /= torch.tensor(DEVIATION).view(3, 1, 1)
    return pixels_UCSS
