"""slake: questions about radiology images in English; ``slake_zh``: in Chinese; ``slake_both``.

Liu, Zhan, Xu, Ma, Yang, Wu: "SLAKE: A semantically-labeled knowledge-enhanced dataset for medical
visual question answering", ISBI 2021, arXiv:2102.09542; https://www.med-vqa.com/slake, CC BY 4.0.

The folder given as ``--data-root`` (or ``Slake1.0``, as the archive unpacks, in it) holds
``imgs/xmlab*/source.jpg`` and the questions of the three official splits: ``train.json``,
``validate.json`` (the hub's copy calls it ``validation.json``) and ``test.json``. Counts: 642
images; 14,028 questions, of which 7,033 in English (4,919 / 1,053 / 1,061). Splits share no image.

A language is a dataset of its own, found by its name: what differs in its answers should differ in
its name, and records need no further column. ``slake_both`` asks of each image in both languages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.data import dataset, published
from trainables.data.dataset import Dataset, Example
from trainables.errors import BadInput, unknown

FOLDERS = ("", "Slake1.0/", "slake/")  # slake: for slake_zh and slake_both beside it
FILES = {
    "train": ("train.json",),
    "validation": ("validate.json", "validation.json"),
    "test": ("test.json",),
}
LANGUAGES = {"en": "English", "zh": "Chinese"}


def load(root: Path | None) -> Dataset:
    """The English half of SLAKE below ``root``.

    Raises:
        BadInput: no ``root``, a file or folder that isn't there, or a file that isn't SLAKE.
    """
    return read(root, name="slake", languages=("en",))


def read(root: Path | None, *, name: str, languages: tuple[str, ...]) -> Dataset:
    """SLAKE below ``root`` in some of ``LANGUAGES``, as dataset ``name``. Raises as ``load``."""
    if root is None:
        raise dataset.needs_root(name)
    root = root.absolute()
    train = published.first(name, root, [f"{folder}train.json" for folder in FOLDERS])
    folder = Path(train).parent
    images = published.first(name, folder, ("imgs",))
    splits = {
        split: _questions(name, published.first(name, folder, files), images, languages)
        for split, files in FILES.items()
    }
    spoken = " and ".join(LANGUAGES[language] for language in languages)
    return dataset.build(
        name=name,
        description=f"SLAKE: questions about 642 radiology images in {spoken} (official split)",
        root=root,
        **splits,
    )


def _questions(name: str, file: Path, images: Path, languages: tuple[str, ...]) -> list[Example]:
    examples = []
    for number, row in enumerate(published.rows(name, file, published.read_json(name, file)), 1):
        with published.reading(name, file, number):
            if row["q_lang"] not in LANGUAGES:
                raise unknown(f"q_lang in row {number} of {file}", row["q_lang"], LANGUAGES)
            if row["q_lang"] in languages:
                examples.append(_example(row, images))
    if not examples:
        raise BadInput(f"{name}: {file} has no question in {', '.join(languages)}")
    return examples


def _example(row: dict[str, Any], images: Path) -> Example:
    image = published.text(row, "img_name")
    return Example(
        question_id=published.text(row, "qid"),
        image_id=image,
        image=images / image,
        question=published.text(row, "question"),
        answer=published.text(row, "answer"),
        answer_type=published.ANSWER_TYPES[row["answer_type"].strip()],
        question_type=published.text(row, "content_type"),
    )
