"""path_vqa: questions about pathology images, made from the captions of textbooks.

He, Zhang, Mou, Xing, Xie: "PathVQA: 30000+ questions for medical visual question answering",
arXiv:2003.10286 (2020); https://github.com/UCSD-AI4H/PathVQA.

The folder given as ``--data-root`` (or ``pvqa``, as the archive unpacks, in it) holds, for each of
the official splits train, val and test, ``qas/SPLIT/SPLIT_qa.pkl`` and ``images/SPLIT/*.jpg``. A
pickle is a list of rows with ``image`` (a file name without ".jpg"), ``question`` and ``answer``.
Counts: 4,998 images, about 32,800 questions; half of the answers are yes or no, and those are the
closed ones. Some images occur several times under different names: see the audit.

A copy on the hub in parquet will do too, as flaviagiammarino/path-vqa.

A pickle can run any program when it is read. These come from strangers, so they are read without
the part that finds classes and functions: only lists, dicts, texts and numbers get in.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from trainables.data import dataset, hub_copy, published
from trainables.data.dataset import Dataset, Example, answer_type_of
from trainables.errors import BadInput

DESCRIPTION = "PathVQA: 32,800 questions about 4,998 pathology images (official split)"
FOLDERS = ("", "pvqa/")
FILES = {"train": "train", "validation": "val", "test": "test"}


def load(root: Path | None) -> Dataset:
    """PathVQA below ``root``.

    Raises:
        BadInput: no ``root``, a file or folder that isn't there, or a file that isn't PathVQA.
    """
    if root is None:
        raise dataset.needs_root("path_vqa")
    root = root.absolute()
    if hub_copy.files(root):
        root, found = hub_copy.read("path_vqa", root)
        splits = {split: found.get(split, []) for split in FILES}
        return dataset.build(name="path_vqa", description=DESCRIPTION, root=root, **splits)
    folder = published.first("path_vqa", root, [f"{folder}qas" for folder in FOLDERS]).parent
    splits = {split: _questions(folder, published_as) for split, published_as in FILES.items()}
    return dataset.build(name="path_vqa", description=DESCRIPTION, root=root, **splits)


def _questions(folder: Path, split: str) -> list[Example]:
    file = published.first("path_vqa", folder, [f"qas/{split}/{split}_qa.pkl"])
    images = published.first("path_vqa", folder, [f"images/{split}"])
    examples = []
    for number, row in enumerate(published.rows("path_vqa", file, _unpickled(file)), start=1):
        with published.reading("path_vqa", file, number):
            image, answer = published.text(row, "image"), published.text(row, "answer")
            examples.append(
                Example(
                    question_id=f"{split}-{number}",  # the published rows have none
                    image_id=image,
                    image=images / f"{image}.jpg",
                    question=published.text(row, "question"),
                    answer=answer,
                    answer_type=answer_type_of(answer),
                )
            )
    return examples


class _Plain(pickle.Unpickler):
    """Reads what is made of lists, tuples, dicts, texts and numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it would call {module}.{name}")


def _unpickled(file: Path) -> Any:
    try:
        with file.open("rb") as opened:
            return _Plain(opened, encoding="utf-8").load()
    # A file that is damaged or no pickle can raise nearly anything.
    except Exception as error:
        raise BadInput(
            f"path_vqa: can't read {file} ({error or type(error).__name__}); use the published file"
        ) from error
