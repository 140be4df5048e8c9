"""Image files to arrays, as the processors of vision-language models expect them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainables.errors import BadInput

if TYPE_CHECKING:
    from PIL import Image


def load_images(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Read images as RGB, stretched to squares with bicubic interpolation (as BLIP does).

    Greyscale becomes grey RGB; what is transparent becomes black, the background of radiology;
    images with more than 8 bits are scaled from their own darkest to their own brightest value,
    since scanners use an arbitrary part of the 16 bits. Where those are not numbers, NaN and minus
    infinity are as the darkest, and infinity is as the brightest.

    Args:
        paths: N files of any format that Pillow reads.
        size: side of the squares in pixels.

    Returns:
        uint8 of shape (N, size, size, 3).

    Raises:
        BadInput: a file can't be read as an image, is cut off, or no pixel of it is a number.
    """
    images = np.zeros((len(paths), size, size, 3), dtype=np.uint8)
    for image, path in zip(images, paths, strict=True):
        image[:] = _load(path, size)
    return images


def _load(path: Path, size: int) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            # Photographs of films carry their orientation beside the pixels.
            upright = ImageOps.exif_transpose(opened)
            rgb = _rgb(upright)
    # Pillow's decoders answer damaged files with these four, depending on the format.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if _is_dicom(path):
            reason = "DICOM has more greys than an image; choose a window and save it as PNG"
        raise BadInput(f"image {path} can't be read ({reason}); replace or remove it") from error
    return np.asarray(rgb.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):  # 16 and 32 bits a pixel
        return Image.fromarray(_to_8_bits(np.asarray(image, dtype=np.float64))).convert("RGB")
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, opaque).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no pixel of it is a finite number")
    darkest, brightest = float(finite.min()), float(finite.max())
    scale = 255 / (brightest - darkest) if brightest > darkest else 0.0
    values = np.nan_to_num(values, nan=darkest, neginf=darkest, posinf=brightest)
    return np.rint((values - darkest) * scale).astype(np.uint8)
