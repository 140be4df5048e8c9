"""Reads images of more than 8 bits a channel, of which Pillow by itself reads grey ones only.

Pillow has no mode for colours of 16 bits, and reads the upper eight of each. Yet it knows files
with either byte first: told the wrong order, it reads the lower eight. So a file is read twice and
put together. What can't be read like this is refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image, ImageFile

    Upright = Callable[[Image.Image], Image.Image]

BITS, PHOTOMETRIC, PLANES, EXTRA, SAMPLES = 258, 262, 284, 338, 339
"""Tags of a TIFF: bits of each channel, what its values stand for, whether channels are mixed, what
is beside colours, and whether values are signed."""
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""Which byte is first, by Pillow's letters (big, little, as in this machine) -> the other way."""


@dataclass(frozen=True, kw_only=True)
class Deep:
    """An image as it is stored, upright."""

    values_HWC: NDArray[np.floating[Any]]
    """Values of one channel or three, as stored."""
    opacity_HW1: NDArray[np.floating[Any]]
    """Opacity of each pixel, from 0 (transparent) to 1."""


def read(path: Path, opened: ImageFile.ImageFile, upright: Upright) -> Deep | None:
    """Read the image in ``path``; None if it has no more than 8 bits a channel.

    Args:
        path: the file.
        opened: the image as Pillow opened it; reading may use it up.
        upright: function that turns an image as its file says.

    Raises:
        ValueError: the image can't be read whole; or another error of Pillow's, if it is damaged.
    """
    if opened.mode == "F" or opened.mode.startswith("I"):
        return _grey(opened, upright)
    layout = _layout(opened)
    if layout is None:
        if _is_cut(path, opened):
            raise ValueError(
                f"{opened.format} of more than 8 bits a channel, of which the lower would be lost; "
                "save it as PNG"
            )
        return None
    halves = [_half(path, one, upright) for one in layout]
    if len(halves) == 1:
        halves = [halves[0][..., ::2], halves[0][..., 1::2]]
    upper, lower = (half.astype(np.uint16) for half in halves)
    samples_HWC = upper * 256 + lower
    colours = 1 if samples_HWC.shape[-1] == 2 else 3
    values_HWC = samples_HWC[..., :colours].astype(np.float32)
    # Colours that are multiplied by their opacity lie on black as they are.
    if samples_HWC.shape[-1] == colours or _tags(opened).get(EXTRA) == (1,):
        opacity_HW1 = _opacity(values_HWC, opened.info)
    else:
        opacity_HW1 = samples_HWC[..., colours:].astype(np.float32) / np.float32(65535)
    return Deep(values_HWC=values_HWC, opacity_HW1=opacity_HW1)


def _grey(opened: ImageFile.ImageFile, upright: Upright) -> Deep:
    tags = _tags(opened)
    # Pillow swaps the bytes of these once more when libtiff, which unpacks them, has done so.
    opened.tile = [
        tile._replace(args=(re.sub(r"(?<=[0-9])B", "N", tile.args[0]), *tile.args[1:]))
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple)
        else tile
        for tile in opened.tile
    ]
    values_HW1 = np.asarray(upright(opened), dtype=np.float64)[..., None]
    if opened.mode == "I" and (tags.get(BITS), tags.get(SAMPLES, (1,))) == ((32,), (1,)):
        values_HW1 = values_HW1 % 2**32  # they are unsigned
    if tags.get(PHOTOMETRIC) == 0:  # zero is white
        values_HW1 = -values_HW1
    return Deep(values_HWC=values_HW1, opacity_HW1=_opacity(values_HW1, opened.info))


def _opacity(values_HWC: NDArray[Any], info: Mapping[Any, Any]) -> NDArray[np.float32]:
    """Opacity of each pixel of a PNG: 0 where it has the one colour that is transparent, else 1."""
    key = info.get("transparency")
    if not isinstance(key, int | tuple):
        return np.ones((*values_HWC.shape[:2], 1), dtype=np.float32)
    opaque_HW1: NDArray[np.bool_] = (values_HWC != np.array(key)).any(axis=-1, keepdims=True)
    return opaque_HW1.astype(np.float32)


def _tags(opened: ImageFile.ImageFile) -> Mapping[int, Any]:
    """Tags of a TIFF; none for other formats."""
    found: Mapping[int, Any] = getattr(opened, "tag_v2", {})
    return found


def _raw(opened: ImageFile.ImageFile) -> tuple[str, tuple[Any, ...]]:
    """Name and arguments of the decoder with which Pillow reads a file."""
    if not opened.tile:
        return "", ()
    tile = opened.tile[0]
    return tile.codec_name, (tile.args,) if isinstance(tile.args, str) else tuple(tile.args or ())


def _layout(opened: ImageFile.ImageFile) -> Sequence[str] | None:
    """Pillow's names of the layouts in which a file is to be read.

    Two names are for the upper bytes and for the lower ones; a single name is for both in turn.
    None means that Pillow reads the file whole, or can't be told how to.
    """
    codec, arguments = _raw(opened)
    if codec == "ppm" and opened.mode == "RGB" and arguments[1] > 255:
        return ("RGB;16B", "RGB;16L")
    if codec not in ("zip", "raw", "libtiff") or _tags(opened).get(PLANES) == 2:
        return None
    if arguments[0] == "LA;16B":
        return ("RGBA",)  # a pixel has four bytes, and all are wanted
    found = re.fullmatch("(RGB|RGBX|RGBA|RGBa);16([BLN])", str(arguments[0]))
    if found is None:
        return None
    channels, order = found.groups()
    channels = channels.upper() if channels == "RGBa" else channels  # Pillow would divide by it
    return f"{channels};16{order}", f"{channels};16{OTHER_ORDER[order]}"


def _half(path: Path, layout: str, upright: Upright) -> NDArray[np.uint8]:
    """Read a file as if it were laid out as ``layout``."""
    from PIL import Image

    with Image.open(path) as opened:
        tiles = []
        for tile in opened.tile:
            if tile.codec_name == "ppm":
                tiles.append(tile._replace(codec_name="raw", args=(layout, 0, 1)))
            elif isinstance(tile.args, tuple):
                tiles.append(tile._replace(args=(layout, *tile.args[1:])))
            else:
                tiles.append(tile._replace(args=layout))
        opened.tile = tiles
        return np.asarray(upright(opened))


def _is_cut(path: Path, opened: ImageFile.ImageFile) -> bool:
    """Whether Pillow reads the upper bits alone, in any of its formats."""
    codec, arguments = _raw(opened)
    if codec == "SGI16" or (arguments and re.search(";16[BLN]$", str(arguments[0]))):
        return True
    match opened.format:
        case "TIFF":
            return any(bits > 8 for bits in _tags(opened).get(BITS, ()))
        case "PPM":
            return codec == "ppm_plain" and int(arguments[1]) > 255
        case "DDS":
            wide = codec == "dds_rgb" and any(mask.bit_count() > 8 for mask in arguments[1])
            return wide or (codec == "bcn" and arguments[0] == 6)
        case "JPEG2000":  # its marker of sizes has three bytes for each channel
            _, _, sizes = path.read_bytes().partition(b"\xff\x4f\xff\x51")
            channels = int.from_bytes(sizes[36:38])
            return any(depth & 127 > 7 for depth in sizes[38:][: 3 * channels : 3])
        case "AVIF":  # a bit of its settings stands for 10 and 12
            settings = rb"av1C\x81.[\x40-\x7f\xc0-\xff]"
            return re.search(settings, path.read_bytes(), re.DOTALL) is not None
        case "ICO" | "CUR" | "ICNS":  # they hold PNGs
            header = rb"\x89PNG\r\n\x1a\n.{4}IHDR.{8}\x10"
            return re.search(header, path.read_bytes(), re.DOTALL) is not None
    return False
