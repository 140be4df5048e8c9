"""my_data: questions in a table.

The folder given as ``--data-root`` holds ``questions.csv``, with the columns ``image`` (a path in
the folder), ``question`` and ``answer``.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainables.data.common import dataset, published_files
from trainables.data.common.dataset import Dataset, Example, answer_type_of, carve


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    image: str
    question: str
    answer: str


def load(root: Path | None) -> Dataset:
    """Load the questions of the table in the folder ``root``.

    Raises:
        BadInput: no ``root``, no table, or a row that lacks something.
    """
    if root is None:
        raise dataset.needs_root("my_data")
    root = root.absolute()
    file = published_files.first("my_data", root, ["questions.csv"])
    with file.open(encoding="utf-8", newline="") as opened:
        rows = published_files.rows("my_data", file, Row, list(csv.DictReader(opened)))
    examples = [
        Example(
            question_id=str(number),
            image_id=row.image,
            image=root / row.image,
            question=row.question,
            answer=row.answer,
            answer_type=answer_type_of(row.answer),
        )
        for number, row in enumerate(rows, start=1)
    ]
    rest, test = carve(examples, share=0.2, salt="my_data:test")
    train, validation = carve(rest, share=0.2, salt="my_data:validation")
    return dataset.build(
        name="my_data",
        description="questions in a table",
        root=root,
        train=train,
        validation=validation,
        test=test,
    )


def small(root: Path, picture: Callable[[Path, int], object]) -> None:
    """Write a small table to ``root``, for the contract tests; ``picture`` draws an image."""
    lines = ["image,question,answer"]
    for number in range(30):
        picture(root / f"{number}.png", number)
        lines += [f"{number}.png,Is there a fracture?,no", f"{number}.png,What is shown?,a hand"]
    (root / "questions.csv").write_text("\n".join(lines), encoding="utf-8")
