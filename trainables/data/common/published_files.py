"""Reads files as their authors publish them; what is missing or different is a one-line error."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from trainables import stored_json
from trainables.data.common.dataset import AnswerType
from trainables.errors import BadInput
from trainables.stored_json import Before

R = TypeVar("R")


def _number_as_text(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number and abs(value) < math.inf else value


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


Text = Annotated[str, Before(_number_as_text)]
"""Type of a field that is a text. A number is taken as text, unless it is what tables have where
they have nothing: NaN, which pandas makes of an empty cell, "NA" and "null", too."""
Kind = Annotated[Literal["OPEN", "CLOSED"], Before(_stripped)]
"""Type of an answer as VQA-RAD and the sets that follow it write it; two of its end in a blank."""
ANSWER_TYPES: dict[Kind, AnswerType] = {"OPEN": "open", "CLOSED": "closed"}


def first(name: str, root: Path, candidates: Sequence[str]) -> Path:
    """Find the first of ``candidates`` that exists below ``root``; ``name`` is the dataset's.

    Raises:
        BadInput: none of them exists.
    """
    for candidate in candidates:
        if os.path.isfile(root / candidate) or os.path.isdir(root / candidate):  # and no pipe
            return root / candidate
    wanted = " or ".join(repr(candidate) for candidate in candidates)
    raise BadInput(f"{name}: {root} has no {wanted}; give the published folder as --data-root")


def read_json(name: str, file: Path) -> Any:
    """Read a JSON file of dataset ``name``.

    Raises:
        BadInput: the file can't be read, or isn't JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{name}: can't read {file} ({error}); use the published file") from error


def rows(name: str, file: Path, kind: type[R], content: Any) -> list[R]:
    """Parse ``content``, which was read from ``file``, as a list of rows.

    ``kind`` is a dataclass with the fields that are needed; others are passed over.

    Raises:
        BadInput: it is no list, or a field of a row is missing or of another type.
    """
    if not isinstance(content, list):
        raise BadInput(f"{name}: {file} holds no list of questions; use the published file")
    return [row(name, file, kind, number, found) for number, found in enumerate(content, start=1)]


def row(name: str, file: Path, kind: type[R], number: int, found: Any) -> R:
    """Parse row ``number`` (from 1) of a published file as a dataclass.

    Raises:
        BadInput: a field is missing or of another type.
    """
    try:
        return stored_json.parse(kind, found, f"{name}: row {number} of {file}")
    except BadInput as error:
        raise BadInput(f"{error}; use the published file") from None
