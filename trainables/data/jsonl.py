"""jsonl: your own questions and images, in a folder with a manifest.

The folder given as ``--data-root`` holds ``questions.jsonl``, with one line for each question: a
JSON object with these fields.

============= ========= ===========================================================================
image         required  path of an image file in the folder
question      required
answer        required  a text; a number is taken as text, but not NaN
answer_type   optional  "open", "closed" or "report"; without: closed if the answer is yes or no
question_id   optional  unique; without: the number of the line, from 1
image_id      optional  the same for the same image; without: its path
question_type optional  any text, e.g. "modality"
patient       optional  any text, the same for all images of a patient (or ``group``: whatever else
                        belongs together)
modality      optional  any text, e.g. "ct"
organ         optional  any text, e.g. "lung"
options       optional  a list of 2 to 26 texts, of a multiple-choice question; without an
                        answer_type it is closed
split         optional  "train", "validation" or "test"; in all lines or in none
============= ========= ===========================================================================

An optional field that is null counts as left away.

For example ``{"image": "images/7.png", "question": "Is there a fracture?", "answer": "no"}``.

The answer of a question with options is one of them: its text, its letter (``B``), or both
(``B: pneumonia``). The model is asked with the options after the question, each in a line as
``A: text``, and learns to answer as the answers are written.

Without splits, a fifth of the images become the test split, and an eighth of the rest validation.
Without a validation split, an eighth of the training images become one. An image's split depends
only on its ``image_id``, so it is the same on every machine, and adding images moves none of the
others. With ``patient`` it depends on that, and all images of a patient go together; intervals and
tests of a study then take patients as independent, and images otherwise.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from trainables import stored_json
from trainables.data.common import dataset, published_files
from trainables.data.common.dataset import AnswerType, Dataset, Example, answer_type_of, carve
from trainables.data.common.multiple_choice import cleaned, written
from trainables.data.common.published_files import Text
from trainables.errors import BadInput

MANIFEST = "questions.jsonl"
TEST_SHARE = 0.2  # share of the images, if the lines have no split
VALIDATION_SHARE = 0.125  # share of the other images, if there is no validation split


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the manifest, as described above."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    image: Text
    question: Text
    answer: Text
    answer_type: AnswerType | None = None
    question_id: Text | None = None
    image_id: Text | None = None
    question_type: Text | None = None
    split: Literal["train", "validation", "test"] | None = None
    options: list[Text] | None = None
    patient: Text | None = None
    group: Text | None = None
    modality: Text | None = None
    organ: Text | None = None

    def __post_init__(self) -> None:
        for name in ("image", "question", "answer"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty; every question needs one")
        if self.patient is not None and self.group is not None:
            raise ValueError("patient and group are both given; give one")
        if self.options is not None:
            if self.answer_type == "report":
                raise ValueError("a report has no options")
            written(self.answer, cleaned(self.options))


def load(root: Path | None) -> Dataset:
    """Load the questions of the manifest in the folder ``root``.

    Raises:
        BadInput: no ``root``, no manifest, or a line or an image that is not as described above.
    """
    if root is None:
        raise dataset.needs_root("jsonl")
    root = root.absolute()
    file = published_files.first("jsonl", root, (MANIFEST,))
    splits: defaultdict[str, list[Example]] = defaultdict(list)
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise BadInput(f"jsonl: can't read {file} ({error}); write it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = _row(f"jsonl: line {number} of {file}", line)
            splits[row.split or ""].append(_example(row, number, root))
    return dataset.build(
        name="jsonl",
        description=f"the questions of {file}",
        root=root,
        **_all_three(splits, file),
    )


def _row(where: str, line: str) -> Row:
    """Parse one line of the manifest."""
    try:
        found = stored_json.parse_text(line)
    except stored_json.RepeatedKey as error:
        raise BadInput(f"{where} {error}; leave one of them away") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON ({error}); write one object a line") from error
    return stored_json.parse(Row, found, where)


def _example(row: Row, number: int, root: Path) -> Example:
    answer, kind, options = row.answer, answer_type_of(row.answer), tuple[str, ...]()
    if row.options is not None:
        options, kind = cleaned(row.options), "closed"
        place, ways = written(answer, options)
        answer = ways[place]
    return Example(
        question_id=str(number) if row.question_id is None else row.question_id,
        image_id=os.path.normpath(row.image) if row.image_id is None else row.image_id,
        image=root / row.image,
        question=row.question,
        answer=answer,
        answer_type=row.answer_type or kind,
        question_type=row.question_type or "",
        options=options,
        patient=row.patient or row.group or "",
        modality=row.modality or "",
        organ=row.organ or "",
    )


def _all_three(splits: Mapping[str, Sequence[Example]], file: Path) -> dict[str, Sequence[Example]]:
    """Divide questions without a split, and carve validation from training if there is none."""
    if "" in splits and len(splits) > 1:
        raise BadInput(
            f"jsonl: {len(splits[''])} lines of {file} have no split but others do; "
            "give it in all lines or in none"
        )
    train, test = splits.get("train", ()), splits.get("test", ())
    if "" in splits:
        train, test = carve(splits[""], share=TEST_SHARE, salt="jsonl:test")
    validation = splits.get("validation", ())
    if not validation:
        train, validation = carve(train, share=VALIDATION_SHARE, salt="jsonl:validation")
    for split, examples in {"test": test, "validation": validation, "train": train}.items():
        if not examples:
            raise BadInput(
                f"jsonl: no image of {file} falls into the {split} split; "
                "give more images, or every line its split"
            )
    return {"train": train, "validation": validation, "test": test}
