"""IU X-ray in R2Gen's form, with two examinations a split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.trainables.data.pictures import picture


def annotation() -> dict[str, list[dict[str, Any]]]:
    """What ``annotation.json`` holds."""
    return {
        split: [
            {
                "id": f"CXR{number}_IM-0{number}",
                "report": "The heart is normal in size. The lungs are clear.",
                "image_path": [f"CXR{number}_IM-0{number}/{view}.png" for view in (0, 1)],
                "split": split,
            }
            for number in (2 * place, 2 * place + 1)
        ]
        for place, split in enumerate(("train", "val", "test"))
    }


def write(root: Path) -> None:
    """Write it to ``root``."""
    (root / "annotation.json").write_text(json.dumps(annotation()))
    for rows in annotation().values():
        for row in rows:
            for image in row["image_path"]:
                picture(root / "images" / image, 2 * int(row["id"][3]) + int(image[-5]))
