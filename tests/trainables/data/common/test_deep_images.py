"""Images of more than 8 bits a channel: scaled, or refused, in each format that can have them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.trainables.data.pictures import picture
from tests.trainables.data.written import (
    SIDE,
    Samples,
    avif,
    dds,
    icon,
    jpeg2000,
    png,
    ppm,
    sgi,
    tiff,
)
from trainables.data.common.images import load_images
from trainables.errors import BadInput

TWELVE_BITS: Samples = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE, 4), dtype=np.uint16)
COLOURS = TWELVE_BITS[..., :3]


def loaded(path: Path) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = load_images([path], SIDE)[0]
    return image


def scaled(values: NDArray[Any], seen: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """From their darkest to their brightest, of those that are seen."""
    seen = values if seen is None else values[seen]
    return (values - float(seen.min())) * 255 / float(seen.max() - seen.min())


SCALED: dict[str, Callable[[], bytes]] = {
    "png": lambda: png(COLOURS),
    "png, interlaced": lambda: png(COLOURS, interlaced=True),
    "ppm": lambda: ppm(COLOURS),
    "ppm of 12 bits": lambda: ppm(COLOURS, 4095),
    **{
        f"tiff {order} {'deflated' * deflated}": lambda order=order, deflated=deflated: tiff(
            COLOURS, order=order, deflated=deflated
        )
        for order in "<>"
        for deflated in (False, True)
    },
    "tiff, and something beside": lambda: tiff(TWELVE_BITS, beside=0),
}


@pytest.mark.parametrize("written", SCALED)
def test_colours_are_scaled_together_from_their_darkest_to_their_brightest(
    tmp_path: Path, written: str
) -> None:
    path = tmp_path / "image"
    path.write_bytes(SCALED[written]())
    assert np.abs(loaded(path) - scaled(COLOURS)).max() <= 1


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_what_is_transparent_is_black_and_does_not_count(
    tmp_path: Path, channels: int, interlaced: bool
) -> None:
    samples = TWELVE_BITS[..., :channels].copy()
    samples[..., -1] = 65535
    samples[2, 3] = 0
    samples[4, 5] = (*[60000] * (channels - 1), 0)
    samples[6, 7, -1] = 65535 // 2
    path = tmp_path / "image.png"
    path.write_bytes(png(samples, interlaced=interlaced))
    opacity = samples[..., -1:] / 65535
    expected = scaled(samples[..., :-1], opacity[..., 0] > 0) * opacity
    assert np.abs(loaded(path) - expected).max() <= 1
    path.write_bytes(tiff(samples, beside=2) if channels == 4 else path.read_bytes())
    assert np.abs(loaded(path) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_colour_can_stand_for_transparency(tmp_path: Path, channels: int) -> None:
    samples = TWELVE_BITS[..., :channels] + np.uint16(1000)
    samples[2, 3] = samples[4, 5] = 7
    path = tmp_path / "image.png"
    path.write_bytes(png(samples, key=(7,) * channels))
    expected = scaled(samples, samples[..., 0] > 7)
    expected[2, 3] = expected[4, 5] = 0
    assert np.abs(loaded(path) - expected).max() <= 1


def test_colours_that_are_multiplied_by_their_opacity_lie_on_black(tmp_path: Path) -> None:
    samples = TWELVE_BITS.copy()
    samples[2, 3] = 0
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(samples, beside=1))
    assert np.abs(loaded(path) - scaled(samples[..., :3])).max() <= 1


def test_an_image_that_is_all_transparent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png(np.zeros((SIDE, SIDE, 4), dtype=np.uint16)))
    with pytest.raises(BadInput, match=r"image\.png can't be read \(no pixel of it is .* opaque"):
        load_images([path], SIDE)


@pytest.mark.parametrize("write", [png, tiff])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_turned_as_it_says(
    tmp_path: Path, write: Callable[..., bytes], channels: int
) -> None:
    samples = TWELVE_BITS[..., :channels]
    path = tmp_path / "image"
    path.write_bytes(write(samples, turn=6))  # its first line is the right side
    assert np.abs(loaded(path) - scaled(np.rot90(samples, -1))).max() <= 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png(COLOURS)[:200])
    with pytest.raises(BadInput, match=r"image\.png can't be read"):
        load_images([path], SIDE)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("kind", ["uint16", "int16", "int32", "float32"])
def test_grey_is_scaled_whatever_its_bytes(
    tmp_path: Path, order: str, deflated: bool, kind: str
) -> None:
    values = TWELVE_BITS[..., :1].astype(kind)
    values = values - values.dtype.type(2000) if kind != "uint16" else values
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(values, order=order, deflated=deflated))
    assert np.abs(loaded(path) - scaled(values)).max() <= 1


def test_unsigned_values_of_32_bits_do_not_become_negative(tmp_path: Path) -> None:
    values = TWELVE_BITS[..., :1].astype(np.uint32) << 20
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(values))
    assert np.abs(loaded(path) - scaled(values)).max() <= 1


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_zero_is_white_where_the_file_says_so(tmp_path: Path, kind: str) -> None:
    values = TWELVE_BITS[..., :1].astype(kind)
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(values, colours=0))
    assert np.abs(loaded(path) - (255 - scaled(values))).max() <= 1


@pytest.mark.parametrize("far", [3.4e38, -3.4e38, 1e9, -1e9])
@pytest.mark.parametrize("padded", [0, 3])
def test_a_number_that_is_far_from_all_others_is_named(
    tmp_path: Path, far: float, padded: int
) -> None:
    values = TWELVE_BITS[..., :1].astype(np.float32)
    values[:padded] = values.min() - 1  # a border of one value
    values[5, 2] = far
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(values))
    named = re.escape(f"image.tif can't be read (the pixel in column 2 of row 5 is {far:g}; ")
    with pytest.raises(BadInput, match=named) as error:
        load_images([path], SIDE)
    assert "\n" not in str(error.value)


def test_a_border_of_a_number_that_is_far_from_all_others_is_named(tmp_path: Path) -> None:
    values = TWELVE_BITS[..., :1].astype(np.float32)
    values[:5] = np.finfo(np.float32).min
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(values))
    with pytest.raises(BadInput, match=r"the pixel in column 0 of row 0 is -3\.40282e\+38; beside"):
        load_images([path], SIDE)


def test_numbers_that_are_far_from_most_others_leave_them_their_contrast(tmp_path: Path) -> None:
    values = TWELVE_BITS[..., :1].astype(np.float32)
    values[5, 2] = 65535  # a mark that was drawn into 12 bits
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(values))
    assert np.abs(loaded(path) - scaled(values)).max() <= 1


@pytest.mark.parametrize("values", [(0.0, 1.0), (0.0, 3.4e38), (0.0, 1.0, 2.0, 1e6), (7.0,)])
def test_a_drawing_of_few_values_is_as_it_is(tmp_path: Path, values: tuple[float, ...]) -> None:
    drawn = np.array(values, dtype=np.float32)[TWELVE_BITS[..., :1] % len(values)]
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(drawn))
    expected = scaled(drawn.astype(np.float64)) if len(values) > 1 else np.zeros_like(drawn)
    assert np.abs(loaded(path) - expected).max() <= 1


REFUSED: dict[str, Callable[[], bytes]] = {
    "TIFF, channels apart": lambda: tiff(COLOURS, apart=True),
    "TIFF, channels apart, deflated": lambda: tiff(COLOURS, apart=True, deflated=True),
    "TIFF, CMYK": lambda: tiff(TWELVE_BITS, colours=5),
    "PPM in digits": lambda: b"P3 1 1 4095 1 2 3\n",
    "SGI": lambda: sgi(COLOURS),
    "SGI, packed": lambda: sgi(COLOURS, packed=True),
    "SGI, opacity": lambda: sgi(TWELVE_BITS),
    "SGI, grey": lambda: sgi(COLOURS[..., :1]),
    "JPEG2000": lambda: jpeg2000("RGB"),
    "JPEG2000 without boxes": lambda: jpeg2000("RGB", no_jp2=True),
    "JPEG2000, grey and opacity": lambda: jpeg2000("LA"),
    "AVIF": avif,
    "ICO": lambda: icon(png(COLOURS)),
    "DDS": lambda: dds(0x3FF00000, 0xFFC00, 0x3FF),
}


@pytest.mark.parametrize("written", REFUSED)
def test_what_would_lose_bits_is_refused(tmp_path: Path, written: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(REFUSED[written]())
    named = written.split(",")[0].split()[0]
    with pytest.raises(BadInput, match=f"{named} of more than 8 bits .* save it as PNG") as error:
        load_images([path], SIDE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "kind", ["png", "tif", "ppm", "rgb", "jp2", "j2k", "avif", "ico", "dds", "webp", "jpg", "bmp"]
)
def test_8_bits_are_as_pillow_reads_them(tmp_path: Path, kind: str) -> None:
    path = picture(tmp_path / f"image.{kind}", 0)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    assert (loaded(path) == expected).all()
    assert loaded(path).std() > 10
