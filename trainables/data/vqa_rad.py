"""vqa_rad: clinicians' questions about radiology images, in the format of the original release.

Lau, Gayen, Ben Abacha, Demner-Fushman: "A dataset of clinically generated visual questions and
answers about radiology images", Scientific Data 5:180251 (2018); https://osf.io/89kps, CC0 1.0.

The folder given as ``--data-root`` holds what the Open Science Framework offers: the file ``VQA_RAD
Dataset Public.json`` (also found in ``original/``) and the images, in ``VQA_RAD Image Folder/`` or
``images/``.

The official split is kept: rows whose ``phrase_type`` starts with "test" are the test split (451 of
2,248). It is a split by question, so nearly all test images also occur in training. The official
release has no validation split. About an eighth of the official training *images* become one, so
that training and validation share no image.

A parquet copy from the Hugging Face hub works too (``trainables.data.common.hub_parquet``). That of
flaviagiammarino/vqa-rad lacks four training questions that were there twice, and its answer types
only tell yes and no from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainables.data.common import dataset, hub_parquet, published_files
from trainables.data.common.dataset import Dataset, Example
from trainables.data.common.published_files import ANSWER_TYPES, Kind, Text

DESCRIPTION = "VQA-RAD: 2,248 clinicians' questions about 314 radiology images (official split)"
VALIDATION_SHARE = 0.125  # share of the images of the official training split
QUESTIONS = ("VQA_RAD Dataset Public.json", "original/VQA_RAD Dataset Public.json")
IMAGES = ("VQA_RAD Image Folder", "images")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Fields of a published row that are read. Some ids and answers are numbers."""

    qid: Text
    phrase_type: Text
    image_name: Text
    question_type: Text = ""
    image_organ: Text = ""
    question: Text
    answer: Text
    answer_type: Kind


def load(root: Path | None) -> Dataset:
    """Load VQA-RAD from the folder ``root``.

    Raises:
        BadInput: no ``root``, a missing file or folder, or a file that isn't VQA-RAD.
    """
    if root is None:
        raise dataset.needs_root("vqa_rad")
    root = root.absolute()
    if hub_parquet.files(root):
        root, splits = hub_parquet.read("vqa_rad", root)
        return _built(root, splits.get("train", []), splits.get("test", []))
    questions = published_files.first("vqa_rad", root, QUESTIONS)
    images = published_files.first("vqa_rad", root, IMAGES)
    content = published_files.read_json("vqa_rad", questions)
    official: dict[bool, list[Example]] = {True: [], False: []}
    for row in published_files.rows("vqa_rad", questions, Row, content):
        official[row.phrase_type.startswith("test")].append(_example(row, images))
    return _built(root, official[False], official[True])


def _built(root: Path, official: list[Example], test: list[Example]) -> Dataset:
    """Make the dataset, with a validation split carved from the official training split."""
    train, validation = dataset.carve(official, share=VALIDATION_SHARE, salt="vqa_rad")
    return dataset.build(
        name="vqa_rad",
        description=DESCRIPTION,
        root=root,
        train=train,
        validation=validation,
        test=test,
    )


def _example(row: Row, images: Path) -> Example:
    return Example(
        question_id=row.qid,
        image_id=row.image_name,
        image=images / row.image_name,
        question=row.question,
        answer=row.answer,
        answer_type=ANSWER_TYPES[row.answer_type],
        question_type=row.question_type,
        organ=row.image_organ.lower(),
    )
