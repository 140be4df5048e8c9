"""iu_xray: chest x-rays for which a report is to be written.

Demner-Fushman et al.: "Preparing a collection of radiology examinations for distribution and
retrieval", JAMIA 23(2) (2016); https://openi.nlm.nih.gov, CC BY-NC-ND 4.0. Format and split are
those with which reports are usually compared: Chen, Song, Chang, Wan: "Generating radiology reports
via memory-driven transformer", EMNLP 2020 (R2Gen, https://github.com/cuhksz-nlp/R2Gen), with 2,069
/ 296 / 590 examinations of two images each.

The folder given as ``--data-root`` holds ``images/`` and ``annotation.json``. The latter has lists
of rows under "train", "val" and "test"; a row has ``id``, ``report`` and ``image_path``, a list of
paths in ``images/``.

The report is the answer to one question that is the same for all images. An example has one image:
the first of the examination, which is mostly the frontal view. R2Gen reads both images, so findings
that need the lateral view can't be seen here, and scores are a little lower.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from trainables.data.common import dataset, published_files
from trainables.data.common.dataset import Dataset, Example
from trainables.data.common.published_files import Text
from trainables.errors import BadInput
from trainables.stored_json import Before

DESCRIPTION = "IU X-ray: reports of 2,955 chest x-ray examinations (R2Gen's split), first image"
QUESTION = "Describe the findings in this chest x-ray."
SPLITS = {"train": "train", "validation": "val", "test": "test"}


def _first(paths: Any) -> Any:
    return paths[0] if isinstance(paths, list) and paths else paths


@dataclass(frozen=True, kw_only=True)
class Row:
    """Fields of a published row that are read; of the paths only the first."""

    id: Text
    report: Text
    image_path: Annotated[Text, Before(_first)]


def load(root: Path | None) -> Dataset:
    """Load IU X-ray from the folder ``root``.

    Raises:
        BadInput: no ``root``, a missing file or folder, or a file that isn't in R2Gen's format.
    """
    if root is None:
        raise dataset.needs_root("iu_xray")
    root = root.absolute()
    file = published_files.first("iu_xray", root, ("annotation.json",))
    images = published_files.first("iu_xray", root, ("images",))
    content = published_files.read_json("iu_xray", file)
    if not isinstance(content, dict) or not set(SPLITS.values()) <= set(content):
        raise BadInput(f"iu_xray: {file} lacks train, val or test; use the published file")
    splits = {
        split: [
            _example(row, images)
            for row in published_files.rows("iu_xray", file, Row, content[published_as])
        ]
        for split, published_as in SPLITS.items()
    }
    return dataset.build(name="iu_xray", description=DESCRIPTION, root=root, **splits)


def _example(row: Row, images: Path) -> Example:
    return Example(
        question_id=row.id,
        image_id=row.image_path,
        image=images / row.image_path,
        question=QUESTION,
        answer=row.report,
        answer_type="report",
    )
