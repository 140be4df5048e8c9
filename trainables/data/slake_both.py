"""slake_both: the bilingual whole of SLAKE; see ``slake`` for its source and its form."""

from __future__ import annotations

from pathlib import Path

from trainables.data import slake
from trainables.data.dataset import Dataset


def load(root: Path | None) -> Dataset:
    """The bilingual whole of SLAKE below ``root``. Raises as ``slake.load``."""
    return slake.read(root, name="slake_both", languages=("en", "zh"))
