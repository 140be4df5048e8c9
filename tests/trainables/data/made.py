"""Datasets made to have something wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.trainables.data.pictures import picture
from trainables.data.common.dataset import AnswerType, Dataset, Example, build


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question about picture ``picture``, in the file of that number unless told otherwise."""

    split: str
    picture: int
    image: str = ""
    question: str = "Is this a CT?"
    answer: str = "yes"
    answer_type: AnswerType = "closed"


def dataset(root: Path, asked: Sequence[Asked]) -> Dataset:
    """A dataset of these questions; their ids are ``q0``, ``q1``, ... Files that are there stay."""
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for number, each in enumerate(asked):
        image = each.image or f"{each.picture}.png"
        if not (root / image).exists():
            picture(root / image, each.picture)
        splits[each.split].append(
            Example(
                question_id=f"q{number}",
                image_id=image,
                image=root / image,
                question=each.question,
                answer=each.answer,
                answer_type=each.answer_type,
            )
        )
    return build(name="made", description="made for a test", root=root, **splits)
