"""Small pictures for tests: random patches, different for each number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, number: int) -> Path:
    """Write picture ``number`` in the format that the path's ending says."""
    patches = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches.repeat(6, axis=0).repeat(6, axis=1)).save(path)
    return path
