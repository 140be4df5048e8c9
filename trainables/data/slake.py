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

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.data.common import dataset, published_files
from trainables.data.common.dataset import Dataset, Example
from trainables.data.common.published_files import ANSWER_TYPES, Kind, Text
from trainables.errors import BadInput

FOLDERS = ("", "Slake1.0/", "slake/")  # "slake/" is shared by slake_zh and slake_both
FILES = {
    "train": ("train.json",),
    "validation": ("validate.json", "validation.json"),
    "test": ("test.json",),
}
LANGUAGES = {"en": "English", "zh": "Chinese"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Fields of a published row that are read."""

    qid: Text
    q_lang: Literal["en", "zh"]
    img_name: Text
    question: Text
    answer: Text
    answer_type: Kind
    content_type: Text
    modality: Text = ""
    location: Text = ""


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
    rows = published_files.rows(name, file, Row, published_files.read_json(name, file))
    examples = [_example(row, images) for row in rows if row.q_lang in languages]
    if not examples:
        raise BadInput(f"{name}: {file} has no question in {', '.join(languages)}")
    return examples


def _example(row: Row, images: Path) -> Example:
    return Example(
        question_id=row.qid,
        image_id=row.img_name,
        image=images / row.img_name,
        question=row.question,
        answer=row.answer,
        answer_type=ANSWER_TYPES[row.answer_type],
        question_type=row.content_type,
        modality=row.modality,
        organ=row.location,
    )
