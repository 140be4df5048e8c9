"""SLAKE as published, with six images: two a split, each asked about twice in each language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.trainables.data.pictures import picture

FILES = ("train.json", "validate.json", "test.json")


def rows(file: str) -> list[dict[str, Any]]:
    """The questions of one of ``FILES``."""
    texts = {
        "en": (("What modality is used?", "MRI"), ("Does the picture contain liver?", "Yes")),
        "zh": (("这张图像是什么模态", "核磁共振"), ("图中有肝脏吗", "有")),
    }
    place = FILES.index(file)
    return [
        {
            "img_id": image,
            "img_name": f"xmlab{image}/source.jpg",
            "question": question,
            "answer": answer,
            "q_lang": language,
            "location": "Abdomen",
            "modality": "MRI",
            "answer_type": ("OPEN", "CLOSED")[closed],
            "base_type": "vqa",
            "content_type": ("Modality", "Organ")[closed],
            "triple": ["vhead", "_", "_"],
            "qid": 100 * image + 10 * closed + ("en", "zh").index(language),
        }
        for image in (2 * place, 2 * place + 1)
        for language, asked in texts.items()
        for closed, (question, answer) in enumerate(asked)
    ]


def write(root: Path) -> None:
    """Write it to ``root``."""
    for file in FILES:
        (root / file).write_text(json.dumps(rows(file), ensure_ascii=False), encoding="utf-8")
    for image in range(6):
        picture(root / "imgs" / f"xmlab{image}" / "source.jpg", image)
