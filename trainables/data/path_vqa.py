"""path_vqa: questions about pathology images, made from the captions of textbooks.

He, Zhang, Mou, Xing, Xie: "PathVQA: 30000+ questions for medical visual question answering",
arXiv:2003.10286 (2020); https://github.com/UCSD-AI4H/PathVQA.

The folder given as ``--data-root`` (or ``pvqa`` in it, as the archive unpacks) holds, for each of
the official splits train, val and test, ``qas/SPLIT/SPLIT_qa.pkl`` and ``images/SPLIT/*.jpg``. A
pickle is a list of rows with ``image`` (a file name without ".jpg"), ``question`` and ``answer``.
There are 4,998 images and about 32,800 questions. Half of the answers are yes or no, and those are
the closed ones. Some images occur several times under different names, which the audit lists.

A parquet copy from the Hugging Face hub works too, such as flaviagiammarino/path-vqa.

Unpickling can run arbitrary code, and these files come from strangers. They are therefore read by
an unpickler that refuses classes and functions: only lists, dicts, texts and numbers get in.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data.common import dataset, hub_parquet, published_files
from trainables.data.common.dataset import Dataset, Example, answer_type_of
from trainables.data.common.published_files import Text
from trainables.errors import BadInput

DESCRIPTION = "PathVQA: 32,800 questions about 4,998 pathology images (official split)"
FOLDERS = ("", "pvqa/")
FILES = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A published row."""

    image: Text
    question: Text
    answer: Text


def load(root: Path | None) -> Dataset:
    """Load PathVQA from the folder ``root``.

    Raises:
        BadInput: no ``root``, a missing file or folder, or a file that isn't PathVQA.
    """
    if root is None:
        raise dataset.needs_root("path_vqa")
    root = root.absolute()
    if hub_parquet.files(root):
        root, found = hub_parquet.read("path_vqa", root)
        splits = {split: found.get(split, []) for split in FILES}
        return dataset.build(name="path_vqa", description=DESCRIPTION, root=root, **splits)
    folder = published_files.first("path_vqa", root, [f"{folder}qas" for folder in FOLDERS]).parent
    splits = {split: _questions(folder, published_as) for split, published_as in FILES.items()}
    return dataset.build(name="path_vqa", description=DESCRIPTION, root=root, **splits)


def _questions(folder: Path, split: str) -> list[Example]:
    file = published_files.first("path_vqa", folder, [f"qas/{split}/{split}_qa.pkl"])
    images = published_files.first("path_vqa", folder, [f"images/{split}"])
    rows = published_files.rows("path_vqa", file, Row, _unpickled(file))
    return [
        Example(
            question_id=f"{split}-{number}",  # the published rows have none
            image_id=row.image,
            image=images / f"{row.image}.jpg",
            question=row.question,
            answer=row.answer,
            answer_type=answer_type_of(row.answer),
        )
        for number, row in enumerate(rows, start=1)
    ]


class _Plain(pickle.Unpickler):
    """Unpickler of lists, tuples, dicts, texts and numbers that refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it would call {module}.{name}")


def _unpickled(file: Path) -> Any:
    try:
        with file.open("rb") as opened:
            return _Plain(opened, encoding="utf-8").load()
    except Exception as error:  # a damaged file, or one that is no pickle, raises nearly any
        raise BadInput(
            f"path_vqa: can't read {file} ({error or type(error).__name__}); use the published file"
        ) from error
