"""Reads image files as arrays in the form that vision-language models expect."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.common import deep_images
from trainables.data.common.deep_images import Deep
from trainables.errors import BadInput

if TYPE_CHECKING:
    from PIL import Image


def load_images(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Read images as RGB, stretched to squares with bicubic interpolation (as BLIP does).

    Greyscale becomes grey RGB; what is transparent becomes black, the background of radiology;
    images with more than 8 bits are scaled from their own darkest to their own brightest value,
    since scanners use an arbitrary part of the 16 bits. Where those are not numbers, NaN and minus
    infinity are as the darkest, and infinity is as the brightest. A number that is far from all
    others (the largest of its type often stands for "not measured") would leave the rest without
    contrast: such an image is refused, since only who wrote it knows what the number means.

    Args:
        paths: N files of any format that Pillow reads.
        size: side of the squares in pixels.

    Returns:
        uint8 of shape (N, size, size, 3).

    Raises:
        BadInput: a file can't be read as an image, is cut off, has more than 8 bits of which some
            would be lost, no pixel of it is a number, or one is far from all others.
    """
    images = np.zeros((len(paths), size, size, 3), dtype=np.uint8)
    for image, path in zip(images, paths, strict=True):
        image[:] = _load(path, size)
    return images


def _load(path: Path, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    # Of large images and of odd bytes beside the pixels, in lines that name Pillow's own files.
    warnings.filterwarnings("ignore", module=r"PIL\b")
    try:
        with Image.open(path) as opened:
            _refuse_missing_rows(opened)
            found = deep_images.read(path, opened, _upright)
            rgb = _rgb(_upright(opened)) if found is None else _to_8_bits(found)
    # Pillow's decoders answer damaged files, and unusual ones, with these, depending on the format.
    except (
        OSError,
        ValueError,
        SyntaxError,
        NotImplementedError,
        OverflowError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if _is_dicom(path):
            reason = "DICOM has more greys than an image; choose a window and save it as PNG"
        raise BadInput(f"image {path} can't be read ({reason}); replace or remove it") from error
    return np.asarray(rgb.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def _refuse_missing_rows(image: Image.Image) -> None:
    """Raise ValueError if a TIFF doesn't say where all of its pixels lie. Pillow reads the others
    as zeros: an image that is cut off, or one of a few bytes that fills gigabytes."""
    parts = [tile.extents for tile in getattr(image, "tile", ()) if tile.extents is not None]
    if image.format != "TIFF" or not parts:
        return
    found = max(right for _, _, right, _ in parts), max(lower for _, _, _, lower in parts)
    if found != image.size:
        raise ValueError("{} x {} pixels of {} x {} are there".format(*found, *image.size))


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its file says: photographs of films carry their orientation. Only this is
    read of what the file says, since ``ImageOps.exif_transpose`` also writes the rest anew and
    fails where that cannot be written."""
    from PIL import ExifTags, Image

    steps = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    image.load()  # a PNG may say it after its pixels
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    step = steps.get(orientation) if isinstance(orientation, int) else None
    return image if step is None else image.transpose(step)


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its magic number."""
    try:
        with path.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, over a black background if it is transparent."""
    from PIL import Image

    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, opaque).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(found: Deep) -> Image.Image:
    from PIL import Image

    values_HWC = found.values_HWC
    seen = values_HWC[np.isfinite(values_HWC) & (found.opacity_HW1 > 0)]
    if not seen.size:
        raise ValueError("no pixel of it is a finite number and opaque")
    darkest, brightest = float(seen.min()), float(seen.max())
    scale = 255 / (brightest - darkest) if brightest > darkest else 0.0
    _refuse_outliers(values_HWC, seen, np.rint((seen - darkest) * scale).astype(np.uint8))
    values_HWC = np.nan_to_num(values_HWC, nan=darkest, neginf=darkest, posinf=brightest)
    scaled_HWC = (values_HWC.clip(darkest, brightest) - darkest) * scale * found.opacity_HW1
    rgb_HWC = np.broadcast_to(np.rint(scaled_HWC).astype(np.uint8), (*scaled_HWC.shape[:2], 3))
    return Image.fromarray(np.ascontiguousarray(rgb_HWC))


def _refuse_outliers(
    values_HWC: NDArray[np.floating[Any]],
    seen: NDArray[np.floating[Any]],
    greys: NDArray[np.uint8],
) -> None:
    """Refuse an image that has nine in ten of its different values within one grey. What is drawn
    in ten values or fewer, as a mask is, may have few greys.

    Args:
        values_HWC: as they are stored.
        seen: those of them that are finite and not transparent.
        greys: what ``seen`` would become.

    Raises:
        ValueError: it is such an image; the pixel that is farthest from the others is named.
    """
    counts = np.bincount(greys, minlength=256)
    if np.sort(counts)[-3:].sum() < 0.9 * greys.size:  # most images need no sorting of values
        return
    values = np.unique(seen)
    most = math.ceil(0.9 * len(values))
    spans = values[most - 1 :] - values[: len(values) - most + 1]
    low = values[spans.argmin()]
    high = low + spans.min()
    if most == len(values) or spans.min() * 255 >= values[-1] - values[0] or low == high:
        return
    distance_HWC = np.maximum(low - values_HWC, values_HWC - high)
    distance_HWC[~np.isfinite(distance_HWC)] = 0
    row, column, channel = np.unravel_index(distance_HWC.argmax(), distance_HWC.shape)
    raise ValueError(
        f"the pixel in column {column} of row {row} is {values_HWC[row, column, channel]:g}; "
        f"beside it all from {low:g} to {high:g}, most of the image, would be one grey"
    )
