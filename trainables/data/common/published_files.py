"""Reads files as their authors publish them; what is missing or different is a one-line error."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.data.common.dataset import AnswerType
from trainables.errors import BadInput

ANSWER_TYPES: dict[str, AnswerType] = {"OPEN": "open", "CLOSED": "closed"}
"""How VQA-RAD and the sets that follow it write the two types."""
SHOWN = 80  # characters of what stands where a text must be


class NoText(ValueError):
    """Says which field of a row must be a text, and what it is."""


def first(name: str, root: Path, candidates: Sequence[str]) -> Path:
    """Find the first of ``candidates`` that exists below ``root``; ``name`` is the dataset's.

    Raises:
        BadInput: none of them exists.
    """
    for candidate in candidates:
        if os.path.exists(root / candidate):
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


def rows(name: str, file: Path, content: Any) -> list[Any]:
    """Return ``content``, which was read from ``file``, if it is a list.

    Raises:
        BadInput: it is no list.
    """
    if not isinstance(content, list):
        raise BadInput(f"{name}: {file} holds no list of questions; use the published file")
    return content


@contextmanager
def reading(name: str, file: Path, number: int) -> Iterator[None]:
    """Context in which row ``number`` (from 1) of a published file is read.

    Raises:
        BadInput: a value that the row must have is missing, or of another type.
    """
    try:
        yield
    except NoText as error:
        raise BadInput(f"{name}: row {number} of {file}: {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(
            f"{name}: row {number} of {file} is not as published ({error!r}); "
            "use the published file"
        ) from error


def text(row: Mapping[str, Any], field: str) -> str:
    """A field of a row. A number is taken as text, unless it is what tables have where they have
    nothing: NaN, which pandas makes of an empty cell, "NA" and "null", too.

    Raises:
        KeyError: the row lacks it.
        NoText: it is neither a text nor a finite number.
    """
    value = row[field]
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not known or (isinstance(value, float) and not math.isfinite(value)):
        given = json.dumps(value, default=repr)[:SHOWN]
        raise NoText(f"{field} must be a text, got {given}")
    return str(value)
