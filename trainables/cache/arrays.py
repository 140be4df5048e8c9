"""Caches arrays on disk, each computed once on a machine, and maps them into memory.

Mapping a file takes no time, and a page that several processes map is in memory once. The name of
an array is derived from everything that decides its values, so a cached array never becomes stale.
Arrays may be deleted at any time.

Several processes may ask for an array at once: one makes the file, the others wait for it. The file
appears under its name only when it is complete.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from trainables.cache import folders as cache_folders

Progress = Callable[[int, int], None]
"""Callback that gets the amount done and the total now and then while a file is made."""


class NoCacheSpace(Exception):
    """No folder can hold an array; the message names the folders and what is wrong with each."""


def cached_array(
    folder: str,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    write: Callable[[BinaryIO], None],
) -> NDArray[Any]:
    """Map the array ``name`` of a cache folder; if it does not exist, it is written first.

    Args:
        folder: subfolder of the cache folders, such as ``images``.
        name: file name without suffix, derived from everything that decides the values.
        shape: shape of the whole array.
        dtype: type of the values.
        write: writes the values, in C order, into an open file.

    Returns:
        The array, mapped from a file, not to be written to.

    Raises:
        NoCacheSpace: no cache folder can hold the array.
    """
    files = [place / folder / f"{name}.npy" for place in cache_folders.folders()]
    for file in files:
        mapped = _map(file, shape, dtype)
        if mapped is not None:
            return mapped
    refused = []
    for file in files:
        try:
            return _make(file, shape, dtype, write)
        except OSError as error:
            refused.append(f"{file.parent} ({error.strerror})")
    raise NoCacheSpace(" or ".join(refused))


def gib(shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
    """GiB that the values of an array take."""
    return math.prod(shape) * dtype.itemsize / 2**30


def _map(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Array of a file; None if the file is missing, damaged or of another shape or type."""
    try:
        mapped: NDArray[Any] = np.load(file, mmap_mode="r")
    except (OSError, EOFError, ValueError):  # missing or damaged
        return None
    return mapped if mapped.shape == shape and mapped.dtype == dtype else None


def _make(
    file: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    write: Callable[[BinaryIO], None],
) -> NDArray[Any]:
    """Make the file, unless another process makes it, and map it.

    Raises:
        OSError: this folder can't hold the file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(file.with_name(f".{file.stem}.lock")):
        mapped = _map(file, shape, dtype)
        if mapped is None:
            for left_by_killed in file.parent.glob(f".{file.stem}-*"):
                shutil.rmtree(left_by_killed, ignore_errors=True)
            free = shutil.disk_usage(file.parent).free
            if free < math.prod(shape) * dtype.itemsize:
                raise OSError(errno.ENOSPC, f"has {free / 2**30:.2f} GiB left")
            with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=file.parent) as beside:
                partial = Path(beside) / file.name
                with partial.open("wb") as opened:
                    header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
                    np.lib.format.write_array_header_1_0(opened, {**header, "shape": shape})
                    write(opened)
                    opened.flush()
                    os.fsync(opened.fileno())
                partial.replace(file)
            mapped = _map(file, shape, dtype)
    if mapped is None:
        raise OSError(errno.EIO, "gives back something else than was written")
    return mapped


@contextmanager
def file_lock(lock: Path) -> Iterator[None]:
    """Hold a lock, so that only one process at a time runs the block. If a process is killed, the
    system releases its lock."""
    with lock.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
