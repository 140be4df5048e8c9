"""VQA-RAD as published, with twenty images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.trainables.data.pictures import picture
from trainables.data import vqa_rad


def rows() -> list[dict[str, Any]]:
    """Twenty training images with two questions each, and two test questions."""
    train = [("freeform", image, number) for image in range(20) for number in (0, 1)]
    return [
        {
            "qid": 2 * image + number,  # numbers, but for one
            "phrase_type": phrase_type,
            "image_name": f"synpic{image}.jpg",
            "question_type": "PRES",
            "question": "Are the lungs normal?",
            "answer": "Yes" if number % 2 else 2,
            "answer_type": "CLOSED " if number % 2 else "OPEN",
        }
        for phrase_type, image, number in [*train, ("test_para", 0, 101), ("test_freeform", 1, 102)]
    ]


def write(root: Path) -> None:
    """Write it to ``root``."""
    (root / vqa_rad.QUESTIONS[0]).write_text(json.dumps(rows()))
    for image in range(20):
        picture(root / vqa_rad.IMAGES[0] / f"synpic{image}.jpg", image)
