"""Decoded images, kept on disk and mapped into memory: decoded once on a machine for all studies.

Decoding and resizing a picture of a few hundred kilobytes takes 10 ms; mapping a file takes none.
The name of a file follows from the content of the images, their size and everything else that
decides the pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from trainables.cache.arrays import NoCacheSpace, Progress, cached_array, gib
from trainables.data.common.dataset import Dataset
from trainables.data.common.images import load_images
from trainables.errors import BadInput

VERSION = 3  # of what load_images makes of a file; other pixels are another version
CHUNK = 64  # images decoded before they are written: bounds the memory


def cached_images(
    dataset: Dataset, size: int, *, progress: Progress | None = None
) -> NDArray[np.uint8]:
    """All images of a dataset as ``load_images`` gives them, in the order of ``dataset.images()``.

    Args:
        dataset: the dataset, with ``contents`` for every image.
        size: side of the squares in pixels.
        progress: called after each image, from the calling thread, if the file must be made.

    Returns:
        uint8 of shape (N, size, size, 3), mapped from a file, not to be written to.

    Raises:
        BadInput: an image can't be read, or no cache folder has room for the file.
    """
    images = dataset.images()
    shape = (len(images), size, size, 3)
    name = f"{dataset.name}-{size}px-{_key(dataset, size)}"
    write = partial(_write, paths=[path for _, path in images], size=size, progress=progress)
    try:
        return cached_array("images", name, shape, np.dtype(np.uint8), write)
    except NoCacheSpace as error:
        raise BadInput(
            f"{dataset.name}: the decoded images ({' x '.join(map(str, shape))} bytes = "
            f"{gib(shape, np.dtype(np.uint8)):.2f} GiB) can't be kept in {error}; make room, or "
            "set XDG_CACHE_HOME to a folder that has some"
        ) from error


def _key(dataset: Dataset, size: int) -> str:
    """Hash of everything that decides the pixels."""
    # The last bit of decoded pixels can differ between versions of Pillow's decoders.
    from PIL import __version__ as pillow

    contents = [dataset.contents[image_id] for image_id, _ in dataset.images()]
    return hashlib.sha256(json.dumps([VERSION, pillow, size, contents]).encode()).hexdigest()[:16]


def _write(
    opened: BinaryIO, *, paths: Sequence[Path], size: int, progress: Progress | None
) -> None:
    """Decode the images in order and write their pixels to an open file."""
    # Threads are enough: Pillow releases Python's global lock while it decodes and resizes.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for start in range(0, len(paths), CHUNK):
            decoded = pool.map(lambda path: load_images([path], size), paths[start:][:CHUNK])
            for done, image in enumerate(decoded, start=start + 1):
                opened.write(image.tobytes())
                if progress is not None:
                    progress(done, len(paths))
