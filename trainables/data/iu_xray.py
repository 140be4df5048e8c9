"""iu_xray: reports of chest x-rays, to be written from the image.

Demner-Fushman et al.: "Preparing a collection of radiology examinations for distribution and
retrieval", JAMIA 23(2) (2016); https://openi.nlm.nih.gov, CC BY-NC-ND 4.0. In the form and split of
Chen, Song, Chang, Wan: "Generating radiology reports via memory-driven transformer", EMNLP 2020
(R2Gen, https://github.com/cuhksz-nlp/R2Gen), with which reports are usually compared: 2,069 / 296 /
590 examinations of two images each.

The folder given as ``--data-root`` holds ``annotation.json`` (under "train", "val" and "test" lists
of rows with ``id``, ``report`` and ``image_path``, a list) and ``images/``, where the paths lead.

A report is the answer to one question that is always the same. An example has one image: here
the first of an examination, which mostly is the frontal view. R2Gen reads both, so what needs the
lateral view can't be known here, and scores are a little lower for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.data import dataset, published
from trainables.data.dataset import Dataset, Example
from trainables.errors import BadInput

DESCRIPTION = "IU X-ray: reports of 2,955 chest x-ray examinations (R2Gen's split), first image"
QUESTION = "Describe the findings in this chest x-ray."
SPLITS = {"train": "train", "validation": "val", "test": "test"}


def load(root: Path | None) -> Dataset:
    """IU X-ray below ``root``.

    Raises:
        BadInput: no ``root``, a file or folder that isn't there, or a file that isn't R2Gen's.
    """
    if root is None:
        raise dataset.needs_root("iu_xray")
    root = root.absolute()
    file = published.first("iu_xray", root, ("annotation.json",))
    images = published.first("iu_xray", root, ("images",))
    content = published.read_json("iu_xray", file)
    if not isinstance(content, dict) or not set(SPLITS.values()) <= set(content):
        raise BadInput(f"iu_xray: {file} lacks train, val or test; use the published file")
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for split, published_as in SPLITS.items():
        for number, row in enumerate(published.rows("iu_xray", file, content[published_as]), 1):
            with published.reading("iu_xray", file, number):
                splits[split].append(_example(row, images))
    return dataset.build(name="iu_xray", description=DESCRIPTION, root=root, **splits)


def _example(row: dict[str, Any], images: Path) -> Example:
    image = published.text({"image_path": row["image_path"][0]}, "image_path")
    return Example(
        question_id=published.text(row, "id"),
        image_id=image,
        image=images / image,
        question=QUESTION,
        answer=published.text(row, "report"),
        answer_type="report",
    )
