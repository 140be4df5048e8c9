"""Decoded images, kept on disk and mapped into memory: read once on a machine, for all studies.

Decoding and resizing takes 10 ms for a picture of a few hundred kilobytes, mapping a file none; and
a page that several processes have mapped is in memory once. A file is named after the content of
the images, their size and everything else that decides the pixels, so it never grows stale; those
that are no longer wanted may be deleted at any time.

Several processes may ask at once: one makes the file, the others wait for it. It appears under its
name when it is whole.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables import caches
from trainables.data.dataset import Dataset
from trainables.data.images import load_images
from trainables.errors import BadInput

VERSION = 1  # of what load_images makes of a file; other pixels are another version
CHUNK = 64  # images decoded before they are written: bounds the memory

Progress = Callable[[int, int], None]
"""Is told how many images of how many are done, now and then, while a file is made."""


def cached_images(
    dataset: Dataset, size: int, *, progress: Progress | None = None
) -> NDArray[np.uint8]:
    """All images of a dataset as ``load_images`` gives them, in the order of ``dataset.images()``.

    Args:
        dataset: whose ``contents`` are known.
        size: side of the squares in pixels.
        progress: told about each image, from the calling thread, if the file must be made.

    Returns:
        uint8 of shape (N, size, size, 3), mapped from a file, not to be written to.

    Raises:
        BadInput: an image can't be read, or there is no room for the file.
    """
    images = dataset.images()
    shape = (len(images), size, size, 3)
    folders = [folder / "images" for folder in caches.folders()]
    files = [folder / f"{dataset.name}-{size}px-{_key(dataset, size)}.npy" for folder in folders]
    for file in files:
        mapped = _map(file, shape)
        if mapped is not None:
            return mapped
    refused = []
    for file in files:
        try:
            return _make(file, [path for _, path in images], shape, progress)
        except OSError as error:
            refused.append(f"{file.parent} ({error.strerror})")
    raise BadInput(
        f"{dataset.name}: the decoded images ({' x '.join(map(str, shape))} bytes = "
        f"{_gib(shape)}) can't be kept in {' or '.join(refused)}; make room, or set "
        "XDG_CACHE_HOME to a folder that has some"
    )


def _key(dataset: Dataset, size: int) -> str:
    # The decoders that come with Pillow differ in the last bit from version to version.
    from PIL import __version__ as pillow

    contents = [dataset.contents[image_id] for image_id, _ in dataset.images()]
    return hashlib.sha256(json.dumps([VERSION, pillow, size, contents]).encode()).hexdigest()[:16]


def _map(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The file's images, if it is there and whole."""
    try:
        mapped: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    except (OSError, EOFError, ValueError):  # not there, or damaged
        return None
    return mapped if mapped.shape == shape and mapped.dtype == np.uint8 else None


def _make(
    file: Path, paths: Sequence[Path], shape: tuple[int, ...], progress: Progress | None
) -> NDArray[np.uint8]:
    """Make the file, unless another process does. OSError: this place is not good for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(file.with_name(f".{file.stem}.lock")):
        mapped = _map(file, shape)
        if mapped is None:
            for left_by_killed in file.parent.glob(f".{file.stem}-*"):
                shutil.rmtree(left_by_killed, ignore_errors=True)
            free = shutil.disk_usage(file.parent).free
            if free < np.prod(shape):
                raise OSError(errno.ENOSPC, f"has {free / 2**30:.2f} GiB left")
            with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=file.parent) as beside:
                partial = Path(beside) / file.name
                _write(partial, paths, shape, progress)
                partial.replace(file)
            mapped = _map(file, shape)
    if mapped is None:
        raise OSError(errno.EIO, "gives back something else than was written")
    return mapped


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Wait until no other process is here. A process that is killed leaves by itself."""
    with lock.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _write(
    file: Path, paths: Sequence[Path], shape: tuple[int, ...], progress: Progress | None
) -> None:
    size = shape[1]
    # Threads: Pillow lets go of Python's lock while it decodes and resizes.
    with file.open("wb") as opened, ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        np.lib.format.write_array_header_1_0(
            opened, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        for start in range(0, len(paths), CHUNK):
            decoded = pool.map(lambda path: load_images([path], size), paths[start:][:CHUNK])
            for done, image in enumerate(decoded, start=start + 1):
                opened.write(image.tobytes())
                if progress is not None:
                    progress(done, len(paths))
        opened.flush()
        os.fsync(opened.fileno())


def _gib(shape: tuple[int, ...]) -> str:
    return f"{np.prod(shape) / 2**30:.2f} GiB"
