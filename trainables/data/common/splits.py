"""Splits the questions of a dataset anew, and joins several datasets to one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from trainables.data.common.dataset import Dataset, Example, seal
from trainables.errors import BadInput

SPLITS = ("official", "by_image")
"""Choices of a split: as the dataset was published, or made by ``by_image``."""
TESTED_PER_TRAINED = 20 / 70
"""Test questions for each training question where ``by_image`` made the split, roughly."""


def by_image(dataset: Dataset, number: int = 0) -> Dataset:
    """Split a dataset anew so that no image, and no patient, is in two splits.

    About 70 % of the images go to training, 10 % to validation and 20 % to testing. Where an image
    goes depends only on the bytes of its file: on the sha256 of ``by_image-v1:`` and the sha256 of
    the file, modulo 100, where 0 to 69 is training and 70 to 79 validation. The split is therefore
    the same on every machine, and copies under other names stay together. An image that two
    datasets share is on the same side in both, so a model trained on one can be scored on the
    other. The images of a patient, and those that are copies of them, go where the file with the
    smallest sha256 goes.

    Divisions of another ``number`` are made in the same way from the sha256 of
    ``by_image-v1:NUMBER:`` and that of the file; each divides the images independently of the
    others. ``dataset`` is then one that was split by image before, whose questions it keeps.

    Raises:
        BadInput: there are so few images that a split gets none.
    """
    splits: dict[str, list[Example]] = {split: [] for split in dataset.splits()}
    together = _together(dataset)
    for examples in dataset.splits().values():
        for example in examples:
            side = _side(together[dataset.contents[example.image_id]], number)
            splits[side].append(example)
    empty = [split for split, examples in splits.items() if not examples]
    if empty:
        raise BadInput(
            f"{dataset.name}: split by image, none of its {len(dataset.contents)} images falls "
            f"into {' or '.join(empty)}{f' in split {number + 1}' if number else ''}; "
            f"{'give fewer --splits' if number else 'keep the official split'}"
        )
    return seal(
        name=dataset.name,
        description=f"{dataset.description}, split {number + 1}"
        if number
        else f"{dataset.description}, split by image",
        contents=dataset.contents,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
    )


def joined(datasets: Sequence[Dataset]) -> Dataset:
    """Join datasets to one, split by split, in the given order; a single one is returned as it is.

    Ids of questions and images are prefixed with the name of their dataset: ``slake:11934``.

    Raises:
        BadInput: a dataset is given twice.
    """
    if len(datasets) == 1:
        return datasets[0]
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    contents: dict[str, str] = {}
    for dataset in datasets:
        for split, examples in dataset.splits().items():
            splits[split] += [_named(example, dataset.name) for example in examples]
        for image_id, content in dataset.contents.items():
            contents[f"{dataset.name}:{image_id}"] = content
    return seal(
        name=",".join(dataset.name for dataset in datasets),
        description="; ".join(dataset.description for dataset in datasets),
        contents=contents,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
    )


def _together(dataset: Dataset) -> dict[str, str]:
    """sha256 of each image's file -> the smallest one of the files that go with it: those of its
    patient, of their copies, and of the patients of these."""
    units: defaultdict[str, set[str]] = defaultdict(set)
    for examples in dataset.splits().values():
        for example in examples:
            units[example.unit].add(dataset.contents[example.image_id])
    joined: dict[str, set[str]] = {}
    for contents in units.values():
        whole = set.union(contents, *(joined.get(content, set()) for content in contents))
        joined |= dict.fromkeys(whole, whole)
    return {content: min(whole) for content, whole in joined.items()}


def _side(content: str, number: int) -> str:
    """The split of an image in a division of the data, given the sha256 of its file."""
    salt = f"by_image-v1:{number}:" if number else "by_image-v1:"
    bucket = int(hashlib.sha256(f"{salt}{content}".encode()).hexdigest(), 16) % 100
    return "train" if bucket < 70 else "validation" if bucket < 80 else "test"


def _named(example: Example, dataset: str) -> Example:
    """A copy of an example with the dataset's name in front of its ids."""
    return replace(
        example,
        question_id=f"{dataset}:{example.question_id}",
        image_id=f"{dataset}:{example.image_id}",
        patient=f"{dataset}:{example.patient}" if example.patient else "",
    )
