"""slake_both: all questions of SLAKE, English and Chinese; ``slake`` gives source and format."""

from __future__ import annotations

from pathlib import Path

from trainables.data import slake
from trainables.data.common.dataset import Dataset


def load(root: Path | None) -> Dataset:
    """Load both languages of SLAKE from the folder ``root``.

    Raises:
        BadInput: no ``root``, a missing file or folder, or a file that isn't SLAKE.
    """
    return slake.read(root, name="slake_both", languages=("en", "zh"))
