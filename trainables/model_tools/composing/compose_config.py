"""Options of ``trainables.model_tools.compose``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import BadInput
from trainables.options import option
from trainables.workload import WorkloadConfig


@dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """Parts of a composed model, and their alignment. Every field is an option of the command."""

    vision: str = option(required=True, help="a DINOv2: folder, or hub:facebook/dinov2-small")
    text: str = option(
        required=True, help="a BERT as wide: folder, or hub:sentence-transformers/all-MiniLM-L6-v2"
    )
    out: Path = option(required=True, help="folder of the model; files of its names are replaced")
    image_size: int = option(224, help="pixels a side, a multiple of the image encoder's patches")
    text_layers: int = option(
        3, help="number of layers of the text encoder, spread over its depth; 0: all"
    )
    vocabulary: int = option(
        14_500, help="number of the text encoder's most frequent word pieces; 0: all"
    )
    data: str = option(
        "phantom", help="dataset that the parts are aligned on, or several with commas"
    )
    data_root: str | None = option(None, help="folder of the dataset, or hub:NAME")
    split: str = option(
        "official",
        help="split whose training part is used: official or by_image, as in later studies",
    )
    epochs: int = option(10, help="number of epochs of the alignment; 0: none")
    lr: float = option(3e-4, help="peak learning rate of the alignment")
    seed: int = option(0, help="seed of the new parts and of the alignment")
    threads: int = option(2, help="number of CPU threads")

    def __post_init__(self) -> None:
        """Refuse numbers with which no model can be made, before any time is spent."""
        least = {"image_size": 1, "threads": 1}
        for name, value in vars(self).items():
            if isinstance(value, int) and value < least.get(name, 0):
                given = f"--{name.replace('_', '-')} {value}"
                raise BadInput(f"{given} is too small; give at least {least.get(name, 0)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise BadInput(f"--lr {self.lr} is not positive; 0.0003 is the usual")

    def workload(self) -> WorkloadConfig:
        """The data to align on, checked like those of a study."""
        config = WorkloadConfig(data=self.data, data_root=self.data_root, split=self.split)
        config.check()
        return config
