"""PathVQA as published, with two images a split."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from tests.trainables.data.pictures import picture

SPLITS = ("train", "val", "test")


def rows(split: str) -> list[dict[str, Any]]:
    """The questions of a split."""
    asked = (("Is necrosis present?", "yes"), ("What is present?", "neutrophils"))
    return [
        {"image": f"{split}_000{image}", "question": question, "answer": answer}
        for image in range(2)
        for question, answer in asked
    ]


def write(root: Path) -> None:
    """Write it to ``root``."""
    for number, split in enumerate(SPLITS):
        folder = root / "pvqa" / "qas" / split
        folder.mkdir(parents=True)
        (folder / f"{split}_qa.pkl").write_bytes(pickle.dumps(rows(split)))
        for image in range(2):
            path = root / "pvqa" / "images" / split / f"{split}_000{image}.jpg"
            picture(path, 2 * number + image)
