"""Arrays kept on disk and mapped into memory: made once on a machine, whole or not at all.

Mapping a file takes no time, and a page that several processes have mapped is in memory once. The
name of an array says all that its values follow from, so it never grows stale; those that are no
longer wanted may be deleted at any time.

Several processes may ask at once: one makes the file, the others wait for it. It appears under its
name when it is whole.
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

from trainables import caches

Progress = Callable[[int, int], None]
"""Is told how much of how much is done, now and then, while a file is made."""


class NoRoom(Exception):
    """No folder can keep an array; says which were tried and what is wrong with each."""


def kept(
    folder: str,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    write: Callable[[BinaryIO], None],
) -> NDArray[Any]:
    """The array ``name`` of a folder of the cache, written first if it is not there.

    Args:
        folder: of the cache folders, as in ``images``.
        name: without suffix; names all that the values follow from.
        shape: of the whole array.
        dtype: of its values.
        write: puts the values, in C order, into an open file.

    Returns:
        The array, mapped from a file, not to be written to.

    Raises:
        NoRoom: it can be kept nowhere.
    """
    files = [place / folder / f"{name}.npy" for place in caches.folders()]
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
    raise NoRoom(" or ".join(refused))


def gib(shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
    """What the values take."""
    return math.prod(shape) * dtype.itemsize / 2**30


def _map(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The file's array, if it is there and whole."""
    try:
        mapped: NDArray[Any] = np.load(file, mmap_mode="r")
    except (OSError, EOFError, ValueError):  # not there, or damaged
        return None
    return mapped if mapped.shape == shape and mapped.dtype == dtype else None


def _make(
    file: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    write: Callable[[BinaryIO], None],
) -> NDArray[Any]:
    """Make the file, unless another process does. OSError: this place is not good for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with only_one(file.with_name(f".{file.stem}.lock")):
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
def only_one(lock: Path) -> Iterator[None]:
    """Wait until no other process is here. A process that is killed leaves by itself."""
    with lock.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
