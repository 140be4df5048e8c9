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

from pathlib import Path
from typing import Any

from trainables.data.common import dataset, published_files
from trainables.data.common.dataset import Dataset, Example
from trainables.errors import BadInput

DESCRIPTION = "IU X-ray: reports of 2,955 chest x-ray examinations (R2Gen's split), first image"
QUESTION = "Describe the findings in this chest x-ray."
SPLITS = {"train": "train", "validation": "val", "test": "test"}


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
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for split, published_as in SPLITS.items():
        for number, row in enumerate(
            published_files.rows("iu_xray", file, content[published_as]), 1
        ):
            with published_files.reading("iu_xray", file, number):
                splits[split].append(_example(row, images))
    return dataset.build(name="iu_xray", description=DESCRIPTION, root=root, **splits)


def _example(row: dict[str, Any], images: Path) -> Example:
    image = published_files.text({"image_path": row["image_path"][0]}, "image_path")
    return Example(
        question_id=published_files.text(row, "id"),
        image_id=image,
        image=images / image,
        question=QUESTION,
        answer=published_files.text(row, "report"),
        answer_type="report",
    )
