"""Reads JSON files that this project wrote into frozen dataclasses, and names a wrong field.

The files outlive the version that wrote them. Keys that a dataclass does not have are ignored, and
a field with a default may be missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from trainables.errors import BadInput

T = TypeVar("T")
QUOTED = 60
"""Letters of a wrong value that an error quotes."""


def read(kind: type[T], file: Path, *, version: int) -> T:
    """Read a file into a dataclass.

    Args:
        kind: the dataclass.
        file: JSON with an object, whose ``version`` is ``version`` or missing.

    Raises:
        BadInput: the file cannot be read, is no JSON or of another version, or has a field that is
            missing or of the wrong type. The error names the field.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file} can't be read ({error.strerror})") from None
    except ValueError as error:
        raise BadInput(f"{file} is no JSON: {error}") from None
    if isinstance(found, dict) and found.get("version", version) != version:
        raise BadInput(f"{file} is of version {found['version']}; this reads {version}")
    return parse(kind, found, str(file))


def parse(kind: type[T], found: Any, source: str) -> T:
    """Make a dataclass of a parsed JSON value.

    Args:
        kind: the dataclass.
        found: the value.
        source: where it stands, for errors.

    Raises:
        BadInput: a field is missing or of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(found)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
    field = _path(wrong["loc"])
    if wrong["type"] == "missing":
        raise BadInput(f"{source} lacks {field}")
    given, said = repr(wrong["input"]), wrong["msg"].removeprefix("Input ")
    given = given if len(given) <= QUOTED else f"{given[:QUOTED]}..."
    raise BadInput(f"{source}: {field or 'the whole'} {said}, not {given}")


def _path(location: tuple[int | str, ...]) -> str:
    """A place within JSON as text: ``arms[0].costs.seconds``."""
    # Of a number that may be an int or a float, pydantic also says which of the two it tried.
    parts = location[:-1] if location[-1:] in (("int",), ("float",)) else location
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")
