"""Finds what may be removed from the cache folders: what nobody has used for long, and what
processes that were killed have left. All of it is made again when it is needed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainables.cache import folders as cache_folders

LEFT_SECONDS = 86_400.0
"""Seconds after which a temporary file that nobody has changed is taken to be left by a process
that was killed."""


@dataclass(frozen=True, kw_only=True)
class Unused:
    """A file or a folder of a cache folder."""

    path: Path
    bytes: int
    days: float
    """Days since it was last used, as far as the file system notes that."""
    temporary: bool
    """Whether a process that was killed has left it."""

    def remove(self) -> None:
        """Remove it. A process of this machine that has mapped it keeps it until it ends. A folder
        first gets another name, so that nobody takes what is left of it for the whole.

        Raises:
            OSError: it cannot be removed.
        """
        if self.path.is_dir() and not self.path.is_symlink():
            aside = self.path
            if not self.temporary:
                aside = self.path.with_name(f".{self.path.name}-removed-{os.getpid()}")
                self.path.rename(aside)
            shutil.rmtree(aside)
        else:
            self.path.unlink(missing_ok=True)


def unused(days: float, keep: Collection[str]) -> list[Unused]:
    """Entries of all cache folders that were not used for ``days``, and temporary ones that were
    left. ``keep`` names folders in a cache folder that are left as they are."""
    found = []
    for folder in cache_folders.folders():
        for path in _entries(folder, keep):
            size, used = _measure(path)
            since = time.time() - used
            temporary = path.name.startswith(".")
            if since > (LEFT_SECONDS if temporary else days * 86_400.0):
                found.append(
                    Unused(path=path, bytes=size, days=since / 86_400.0, temporary=temporary)
                )
    return found


def _entries(folder: Path, keep: Collection[str]) -> Iterator[Path]:
    """What is in a cache folder: files and folders of its folders (``images/x.npy``), and datasets
    that are folders of it themselves."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.name in keep or not entry.is_dir():
            continue
        if entry.name in cache_folders.KINDS:
            yield from sorted(entry.iterdir())
        else:
            yield entry


def _measure(path: Path) -> tuple[int, float]:
    """Bytes of a file or of a folder's files, and the time of the last use of one of them."""
    size, used = 0, 0.0
    inside = [Path(at, name) for at, _, names in os.walk(path) for name in names]
    for file in (path, *inside):
        try:
            stat = file.lstat()
        except FileNotFoundError:
            continue
        used = max(used, stat.st_mtime)
        if not file.is_dir():  # a look into a folder is no use of it
            size, used = size + stat.st_size, max(used, stat.st_atime)
    return size, used
