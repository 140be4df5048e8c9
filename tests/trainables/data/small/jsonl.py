"""A folder of a user: thirty images with two questions each, no splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.trainables.data.pictures import picture


def rows() -> list[dict[str, Any]]:
    """The lines of the manifest."""
    asked = (("Is there a fracture?", "no"), ("What is shown?", "a hand"))
    return [
        {"image": f"images/{image}.png", "question": question, "answer": answer}
        for image in range(30)
        for question, answer in asked
    ]


def write(root: Path, lines: list[dict[str, Any]] | None = None) -> None:
    """Write it to ``root``; other ``lines`` instead of ``rows`` for what is wrong with them."""
    text = "\n".join(json.dumps(row) for row in (rows() if lines is None else lines))
    (root / "questions.jsonl").write_text(text + "\n")
    for image in range(30):
        picture(root / "images" / f"{image}.png", image)
