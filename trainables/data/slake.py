"""slake: questions about radiology images in English.

Liu, Zhan, Xu, Ma, Yang, Wu: "SLAKE: A semantically-labeled knowledge-enhanced dataset for medical
visual question answering", ISBI 2021, arXiv:2102.09542; https://www.med-vqa.com/slake, CC BY 4.0.

The folder given as ``--data-root`` (or ``Slake1.0`` in it, as the archive unpacks) holds
``imgs/xmlab*/source.jpg`` and the questions of the three official splits: ``train.json``,
``validate.json`` (``validation.json`` in the hub's copy) and ``test.json``. There are 642 images
and 14,028 questions, of which 7,033 are in English (4,919 / 1,053 / 1,061). The splits share no
image.

Each language is a dataset with a name of its own: ``slake`` is English, ``slake_zh`` Chinese, and
``slake_both`` asks about each image in both. Records of a study then need no column for the
language.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.data.common import dataset, published_files
from trainables.data.common.dataset import Dataset, Example
from trainables.errors import BadInput, unknown

FOLDERS = ("", "Slake1.0/", "slake/")  # "slake/" is shared by slake_zh and slake_both
FILES = {
    "train": ("train.json",),
    "validation": ("validate.json", "validation.json"),
    "test": ("test.json",),
}
LANGUAGES = {"en": "English", "zh": "Chinese"}


def load(root: Path | None) -> Dataset:
    """Load the English half of SLAKE from the folder ``root``.

    Raises:
        BadInput: no ``root``, a missing file or folder, or a file that isn't SLAKE.
    """
    return read(root, name="slake", languages=("en",))


def read(root: Path | None, *, name: str, languages: tuple[str, ...]) -> Dataset:
    """Load SLAKE from the folder ``root`` in some of ``LANGUAGES``, as the dataset ``name``.

    Raises:
        BadInput: no ``root``, a missing file or folder, or a file that isn't SLAKE.
    """
    if root is None:
        raise dataset.needs_root(name)
    root = root.absolute()
    train = published_files.first(name, root, [f"{folder}train.json" for folder in FOLDERS])
    folder = Path(train).parent
    images = published_files.first(name, folder, ("imgs",))
    splits = {
        split: _questions(name, published_files.first(name, folder, files), images, languages)
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
    for number, row in enumerate(
        published_files.rows(name, file, published_files.read_json(name, file)), 1
    ):
        with published_files.reading(name, file, number):
            if row["q_lang"] not in LANGUAGES:
                raise unknown(f"q_lang in row {number} of {file}", row["q_lang"], LANGUAGES)
            if row["q_lang"] in languages:
                examples.append(_example(row, images))
    if not examples:
        raise BadInput(f"{name}: {file} has no question in {', '.join(languages)}")
    return examples


def _example(row: dict[str, Any], images: Path) -> Example:
    image = published_files.text(row, "img_name")
    return Example(
        question_id=published_files.text(row, "qid"),
        image_id=image,
        image=images / image,
        question=published_files.text(row, "question"),
        answer=published_files.text(row, "answer"),
        answer_type=published_files.ANSWER_TYPES[row["answer_type"].strip()],
        question_type=published_files.text(row, "content_type"),
    )
