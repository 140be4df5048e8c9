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
split         optional  "train", "validation" or "test"; in all lines or in none
============= ========= ===========================================================================

For example ``{"image": "images/7.png", "question": "Is there a fracture?", "answer": "no"}``.

Without splits, a fifth of the images become the test split, and an eighth of the rest validation.
Without a validation split, an eighth of the training images become one. An image's split depends
only on its ``image_id``, so it is the same on every machine, and adding images moves none of the
others. If patients have several images, give splits: nothing here knows which belong together.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from trainables.data.common import dataset, published_files
from trainables.data.common.dataset import AnswerType, Dataset, Example, answer_type_of, carve
from trainables.errors import BadInput, unknown

MANIFEST = "questions.jsonl"
REQUIRED = ("image", "question", "answer")
OPTIONAL = ("answer_type", "question_id", "image_id", "question_type", "split")
ALLOWED = {"split": ("train", "validation", "test"), "answer_type": get_args(AnswerType)}
TEST_SHARE = 0.2  # share of the images, if the lines have no split
VALIDATION_SHARE = 0.125  # share of the other images, if there is no validation split


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
            splits[row.get("split", "")].append(_example(row, number, root))
    return dataset.build(
        name="jsonl",
        description=f"the questions of {file}",
        root=root,
        **_all_three(splits, file),
    )


def _row(where: str, line: str) -> dict[str, str]:
    """Parse one line of the manifest and check its fields."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON ({error}); write one object a line") from error
    if not isinstance(found, dict):
        raise BadInput(f"{where} is no JSON object; write one object a line")
    row: dict[str, str] = {}
    for key in found:
        if key not in REQUIRED + OPTIONAL:
            raise unknown(f"field in {where}:", key, REQUIRED + OPTIONAL)
        try:
            row[key] = published_files.text(found, key)
        except published_files.NoText as error:
            raise BadInput(f"{where}: {error}") from error
        if key in ALLOWED and row[key] not in ALLOWED[key]:
            raise unknown(f"{key} in {where}:", row[key], ALLOWED[key])
    for key in REQUIRED:
        if not row.get(key, "").strip():
            raise BadInput(f"{where} has no {key}; every question needs one")
    return row


def _example(row: Mapping[str, str], number: int, root: Path) -> Example:
    image, answer = row["image"], row["answer"]
    return Example(
        question_id=row.get("question_id", str(number)),
        image_id=row.get("image_id", os.path.normpath(image)),
        image=root / image,
        question=row["question"],
        answer=answer,
        answer_type=cast(AnswerType, row.get("answer_type", answer_type_of(answer))),
        question_type=row.get("question_type", ""),
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
