"""Checkpoints as a machine that failed leaves them: with files that are cut short, or damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from trainables.training.checkpoint import MANIFEST

CUTS = {"to nothing": 0.0, "in half": 0.5, "by a byte": 1.0}
"""How a file is cut -> the share of its bytes that is left, one byte less at the end."""


def cut(file: Path, how: str) -> None:
    """Cut a file short."""
    size = file.stat().st_size
    os.truncate(file, min(int(CUTS[how] * size), size - 1))


def every_cut(folder: Path, scratch: Path, *, listed: bool = True) -> Iterator[tuple[str, Path]]:
    """What is cut, and a copy of a trial's ``folder`` in which it is so of its last checkpoint: of
    each file each cut. Without its list a checkpoint is as earlier versions wrote it."""
    for checkpoint in () if listed else folder.iterdir():
        (checkpoint / MANIFEST).unlink()
    last = max(folder.iterdir())
    for file in sorted(path for path in last.rglob("*") if path.is_file()):
        for how in CUTS:
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.copytree(folder, scratch)
            cut(scratch / file.relative_to(folder), how)
            yield f"{file.name} {how}", scratch
