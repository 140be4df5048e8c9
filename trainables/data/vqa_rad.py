"""vqa_rad: real questions of clinicians about radiology images, in the form they were published.

Lau, Gayen, Ben Abacha, Demner-Fushman: "A dataset of clinically generated visual questions and
answers about radiology images", Scientific Data 5:180251 (2018); https://osf.io/89kps, CC0 1.0.

The folder given as ``--data-root`` holds what the Open Science Framework gives: the file
``VQA_RAD Dataset Public.json`` (also taken from ``original/``) and the images, in
``VQA_RAD Image Folder/`` or ``images/``.

The official split is kept: rows whose ``phrase_type`` starts with "test" are the test split (451 of
2,248). Be warned that it is by question: nearly all test images are also asked about in training.
The official release has no validation split; about an eighth of the official training *images*
become one, so that training and validation share none.

A copy on the hub in parquet will do too (``trainables.data.hub_copy``): that of
flaviagiammarino/vqa-rad lacks four training questions that were there twice, and its types of
answers are by yes and no.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.data import dataset, hub_copy, published
from trainables.data.dataset import Dataset, Example

DESCRIPTION = "VQA-RAD: 2,248 clinicians' questions about 314 radiology images (official split)"
VALIDATION_SHARE = 0.125  # of the images of the official training split
QUESTIONS = ("VQA_RAD Dataset Public.json", "original/VQA_RAD Dataset Public.json")
IMAGES = ("VQA_RAD Image Folder", "images")


def load(root: Path | None) -> Dataset:
    """VQA-RAD below ``root``.

    Raises:
        BadInput: no ``root``, a file or folder that isn't there, or a file that isn't VQA-RAD.
    """
    if root is None:
        raise dataset.needs_root("vqa_rad")
    root = root.absolute()
    if hub_copy.files(root):
        root, splits = hub_copy.read("vqa_rad", root)
        return _built(root, splits.get("train", []), splits.get("test", []))
    questions = published.first("vqa_rad", root, QUESTIONS)
    images = published.first("vqa_rad", root, IMAGES)
    rows = published.rows("vqa_rad", questions, published.read_json("vqa_rad", questions))
    official: dict[bool, list[Example]] = {True: [], False: []}
    for number, row in enumerate(rows, start=1):
        with published.reading("vqa_rad", questions, number):
            is_test = row["phrase_type"].startswith("test")
            official[is_test].append(_example(row, images))
    return _built(root, official[False], official[True])


def _built(root: Path, official: list[Example], test: list[Example]) -> Dataset:
    train, validation = dataset.carve(official, share=VALIDATION_SHARE, salt="vqa_rad")
    return dataset.build(
        name="vqa_rad",
        description=DESCRIPTION,
        root=root,
        train=train,
        validation=validation,
        test=test,
    )


def _example(row: dict[str, Any], images: Path) -> Example:
    # Some ids and answers are numbers, and two answer types end in a blank.
    image = published.text(row, "image_name")
    return Example(
        question_id=published.text(row, "qid"),
        image_id=image,
        image=images / image,
        question=published.text(row, "question"),
        answer=published.text(row, "answer"),
        answer_type=published.ANSWER_TYPES[row["answer_type"].strip()],
        question_type=published.text({"question_type": "", **row}, "question_type"),
    )
