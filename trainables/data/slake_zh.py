"""slake_zh: the Chinese questions of SLAKE; ``slake`` gives source and format."""

from __future__ import annotations

from pathlib import Path

from trainables.data import slake
from trainables.data.common.dataset import Dataset


def load(root: Path | None) -> Dataset:
    """Load the Chinese half of SLAKE from the folder ``root``.

    Raises:
        BadInput: no ``root``, a missing file or folder, or a file that isn't SLAKE.
    """
    return slake.read(root, name="slake_zh", languages=("zh",))
