"""Images of every kind that medical data come in."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainables.data.common.images import load_images
from trainables.errors import BadInput

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4  # 0 to 252


def loaded(path: Path) -> NDArray[np.uint8]:
    images = load_images([path], 8)
    assert images.shape == (1, 8, 8, 3)
    assert images.dtype == np.uint8
    image: NDArray[np.uint8] = images[0]
    return image


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA"])
def test_grey_images_look_the_same_in_every_mode(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(RAMP).convert(mode).save(path)
    assert (loaded(path) == RAMP[..., None]).all()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.new("RGB", (8, 8), (200, 100, 50)).convert("CMYK").save(path)
    assert np.abs(loaded(path).astype(int) - (200, 100, 50)).max() <= 2


def test_colours_stay_in_order(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (5, 9), (200, 100, 50)).save(path)
    assert (loaded(path) == (200, 100, 50)).all()


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGBA", (8, 8), (200, 100, 50, 0)).save(path)
    assert (loaded(path) == 0).all()


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_16_bits_are_scaled_by_their_own_range(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    twelve_bits = RAMP.astype(np.uint16) * 16 + 1000
    Image.fromarray(twelve_bits).save(path)
    expected = np.rint(RAMP.astype(float) * 255 / 252)
    assert np.abs(loaded(path) - expected[..., None]).max() <= 1


def test_a_flat_16_bit_image_is_black(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.full((8, 8), 4000, dtype=np.uint16)).save(path)
    assert (loaded(path) == 0).all()


@pytest.mark.parametrize(
    ("odd", "becomes"), [(np.nan, 0), (-np.inf, 0), (np.inf, 255)], ids=["nan", "-inf", "inf"]
)
def test_the_range_is_that_of_the_finite_pixels(tmp_path: Path, odd: float, becomes: int) -> None:
    path = tmp_path / "image.tif"
    pixels = RAMP.astype(np.float32) / 1000 - 0.1
    expected = np.rint(RAMP.astype(float) * 255 / 252)
    pixels[3, 4], expected[3, 4] = odd, becomes
    Image.fromarray(pixels).save(path)
    assert np.abs(loaded(path) - expected[..., None]).max() <= 1


def test_an_image_without_a_finite_pixel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)).save(path)
    with pytest.raises(BadInput, match=r"image\.tif can't be read \(no pixel of it is a finite"):
        load_images([path], 8)


def test_oblong_images_are_stretched(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    half = np.zeros((40, 100), dtype=np.uint8)
    half[:, 50:] = 255
    Image.fromarray(half).save(path)
    image = loaded(path)
    assert (image[:, :3] < 10).all()
    assert (image[:, -3:] > 245).all()


@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "cut off"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(BadInput, match=r"image\.png can't be read") as error:
        load_images([path], 8)
    assert "\n" not in str(error.value)


def test_a_huge_image_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    """A few bytes that say they are ten gigabytes."""
    path = tmp_path / "image.png"
    parts = (b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT", b"IEND")
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(
        BadInput, match=r"image\.png can't be read \(Image size \(3600000000 pix"
    ) as e:
        load_images([path], 8)
    assert "\n" not in str(e.value)


def test_a_tiff_that_lacks_rows_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    """Pillow reads what the file doesn't say as zeros. A fuzzer made such an image of 2 KiB, which
    said that it had 100 million pixels."""
    path = tmp_path / "image.tif"
    image = Image.fromarray(np.arange(576, dtype=np.float32).reshape(24, 24))
    image.save(path, tiffinfo={278: 24})
    assert loaded(path).shape
    whole = path.read_bytes()
    height = struct.pack("<HHII", 257, 4, 1, 24)
    assert whole.count(height) == 1
    path.write_bytes(whole.replace(height, struct.pack("<HHII", 257, 4, 1, 2_000_024)))
    expected = r"image\.tif can't be read \(24 x 24 pixels of 24 x 2000024 are there\)"
    with pytest.raises(BadInput, match=expected):
        load_images([path], 8)


def test_what_pillow_has_not_been_taught_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.dds"
    Image.new("RGB", (8, 8)).save(path)
    whole = bytearray(path.read_bytes())
    whole[80:84] = bytes(4)  # what kind of pixels it has
    path.write_bytes(whole)
    with pytest.raises(BadInput, match=r"image\.dds can't be read \(Unknown pixel format flags 0"):
        load_images([path], 8)


def test_dicom_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(100))
    with pytest.raises(BadInput, match=r"image\.dcm can't be read \(DICOM .* save it as PNG"):
        load_images([path], 8)


def test_no_paths_no_images() -> None:
    assert load_images([], 8).shape == (0, 8, 8, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright_whatever_else_its_file_says(
    tmp_path: Path, orientation: int
) -> None:
    image, exif = Image.new("RGB", (32, 32)), Image.Exif()
    image.paste((200, 0, 0), (0, 0, 32, 8))
    image.paste((0, 0, 200), (0, 8, 8, 32))
    exif[0x0112] = orientation
    exif[0x011A] = 72.0  # a resolution, of which the file will say that it is negative
    image.save(tmp_path / "sound.jpg", exif=exif, quality=95)
    content = (tmp_path / "sound.jpg").read_bytes()
    wrong = content.replace(b"\0\0\0\x48\0\0\0\1", b"\xff\xff\xff\xff\0\0\0\0")
    assert wrong != content
    (tmp_path / "wrong.jpg").write_bytes(wrong)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "sound.jpg"))
    assert expected is not None
    for name in ("sound.jpg", "wrong.jpg"):
        np.testing.assert_array_equal(load_images([tmp_path / name], 32)[0], np.asarray(expected))


def test_pillow_warns_nobody_of_a_large_image(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert load_images([tmp_path / "large.png"], 8).shape == (1, 8, 8, 3)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(BadInput, match=r"can't be read \(Image size \(1600 pixels\) exceeds limit"):
        load_images([tmp_path / "large.png"], 8)
