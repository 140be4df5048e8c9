"""Images that look the same are found, images that don't are not."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from trainables.audit import near_duplicates
from trainables.data import phantom
from trainables.data.common.images import load_images


def test_an_image_saved_anew_is_found(tmp_path: Path) -> None:
    image = Image.open(phantom.load(None).train[0].image).convert("RGB")
    image.save(tmp_path / "0.png")
    image.save(tmp_path / "1.jpg", quality=60)
    ImageEnhance.Brightness(image).enhance(0.9).save(tmp_path / "2.png")
    image.resize((64, 64)).save(tmp_path / "3.png")
    image.rotate(90).save(tmp_path / "4.png")
    images = load_images(sorted(tmp_path.iterdir()), near_duplicates.THUMBNAIL)
    assert near_duplicates.pairs(images) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def test_flat_images_are_alike_nothing() -> None:
    greys = np.arange(5, dtype=np.uint8)[:, None, None, None]
    assert near_duplicates.pairs(np.broadcast_to(greys, (5, 32, 32, 3))) == []


def test_ten_thousand_images_take_seconds() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)
    images[9_000] = np.clip(images[3].astype(int) + 3, 0, 255)
    started = time.process_time()
    assert near_duplicates.pairs(images) == [(3, 9_000)]
    assert time.process_time() - started < 10
