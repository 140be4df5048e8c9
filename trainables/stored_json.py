"""Reads JSON files that this project wrote into frozen dataclasses, and names a wrong field.

The files outlive the version that wrote them. A field with a default may be missing. Keys that a
dataclass does not have are ignored, unless its ``__pydantic_config__`` forbids them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainables.errors import BadInput

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
WORDS = {
    "bool": "true or false",
    "dataclass": "an object",
    "dict": "an object",
    "float": "a number",
    "int": "a whole number",
    "mapping": "an object",
    "string": "a text",
    "tuple": "a list",
}
"""First word of the name of pydantic's error -> what the value should be."""
QUOTED = 60
"""Letters of a wrong value that an error quotes."""


def read(kind: type[T], file: Path, *, versions: Collection[int]) -> T:
    """Read a file into a dataclass.

    Args:
        kind: the dataclass.
        file: JSON with an object, whose ``version`` is one of ``versions`` or missing.
        versions: versions that can be read, in ascending order.

    Raises:
        BadInput: the file cannot be read, is no JSON or of another version, or has a field that is
            missing or of the wrong type. The error names the field.
    """
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise BadInput(f"{file} can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file} is no JSON: {error}; give it back as it was") from None
    if isinstance(found, dict) and found.get("version", 1) not in versions:
        known = " and ".join(map(str, versions))
        raise BadInput(
            f"{file} is of version {found['version']}; this reads {known}: go on with the "
            "version of this program that wrote it"
        )
    # As JSON, since a dataclass may be strict: a list is a tuple there, and "3" is no number.
    return _validated(lambda adapter: adapter.validate_json(text), kind, str(file))


def parse(kind: type[T], found: Any, source: str) -> T:
    """Make a dataclass of a parsed JSON value.

    Args:
        kind: the dataclass.
        found: the value.
        source: where it stands, for errors.

    Raises:
        BadInput: a field is missing or of the wrong type.
    """
    return _validated(lambda adapter: adapter.validate_python(found), kind, source)


def _validated(validate: Callable[[TypeAdapter[T]], T], kind: type[T], source: str) -> T:
    """What ``validate`` makes of a dataclass's adapter.

    Raises:
        BadInput: a field is missing or of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return validate(TypeAdapter(kind))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
    location = wrong["loc"]
    either = location[-1:] in (("int",), ("float",))  # pydantic tried both for a number
    keys = location[:-1] if either else location
    field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    field = field.removeprefix(".") or "the whole"
    if wrong["type"] == "unexpected_keyword_argument":
        raise BadInput(f"{source} has {field}, which is unknown here: a newer version wrote it")
    if wrong["type"] == "value_error":
        raise BadInput(f"{source}: {field}: {wrong['ctx']['error']}")
    if wrong["type"] == "missing":
        raise BadInput(f"{source} lacks {field}")
    kind_of = "float" if either else wrong["type"].partition("_")[0]
    should = WORDS.get(kind_of) or wrong["msg"].removeprefix("Input should be ")
    given = repr(wrong["input"])
    given = given if len(given) <= QUOTED else f"{given[:QUOTED]}..."
    raise BadInput(f"{source}: {field} should be {should}, not {given}")
