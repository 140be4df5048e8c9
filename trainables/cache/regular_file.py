"""Reads files that others may have put there: a pipe in a file's place would be read for ever."""

from __future__ import annotations

import errno
from pathlib import Path


def check(path: Path) -> None:
    """Check that no pipe or device is in a file's place. That there is none, or a folder, is for
    whoever opens it to say.

    Raises:
        OSError: one is.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.ENXIO, "it is no regular file", str(path))


def content(path: Path) -> bytes:
    """Content of a file.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    check(path)
    return path.read_bytes()
