"""Parses JSON and rows of tables into frozen dataclasses by pydantic, and names a wrong field.

``read`` is for files of versions, which outlive the version that wrote them, and ``parse`` for what
has been read elsewhere. A field with a default may be missing. Keys that a dataclass does not have
are ignored, unless its ``__pydantic_config__`` forbids them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainables.cache import regular_file
from trainables.errors import BadInput, did_you_mean, is_whole, unknown, without_controls

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
WORDS = {
    "bool": "true or false",
    "bytes": "bytes",
    "dataclass": "an object",
    "dict": "an object",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "mapping": "an object",
    "string": "a text",
    "tuple": "a list",
}
"""First word of the name of pydantic's error -> what the value should be."""
QUOTED = 60
"""Letters of a wrong value that an error quotes."""


@dataclass(frozen=True)
class Before:
    """Annotation of a field's type: what ``function`` makes of a value is parsed in its place.

    It is pydantic's ``BeforeValidator``, but a field is declared without importing pydantic.
    """

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """What pydantic asks an annotation for."""
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.function, handler(source))


def read(kind: type[T], file: Path, *, versions: Collection[int] | None) -> T:
    """Read a file into a dataclass.

    Args:
        kind: the dataclass.
        file: JSON with an object, whose ``version`` is one of ``versions`` or missing.
        versions: versions that can be read, in ascending order. None: the file is another
            program's, and no field of it says how to read it.

    Raises:
        BadInput: the file cannot be read, is no JSON or of another version, or has a field that is
            missing or of the wrong type. The error names the field.
    """
    try:
        content = regular_file.content(file)
    except OSError as error:
        raise BadInput(f"{file} can't be read ({error.strerror})") from None
    return read_content(kind, content, str(file), versions=versions)


def read_content(
    kind: type[T], content: bytes, source: str, *, versions: Collection[int] | None
) -> T:
    """Read the content of a file into a dataclass, as ``read`` does. ``source`` is named in errors.
    Others may have written the file: nothing in it acts on a terminal that shows it.

    Raises:
        BadInput: as ``read`` does.
    """
    try:
        text = without_controls(content.decode("utf-8"))
        found = parse_text(text)
    except RepeatedKey as error:
        raise BadInput(f"{source} {error}; give it back as it was") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source} is no JSON: {error}; give it back as it was") from None
    if versions and isinstance(found, dict) and found.get("version", 1) not in versions:
        known = " and ".join(map(str, versions))
        raise BadInput(
            f"{source} is of version {found['version']}; this reads {known}: go on with the "
            "version of this program that wrote it"
        )
    # As JSON, since a dataclass may be strict: a list is a tuple there, and "3" is no number.
    return _validated(lambda adapter: adapter.validate_json(text), kind, source)


def object_in(content: bytes | str) -> dict[str, Any]:
    """The object that a JSON document holds; empty if there is none in it. It is for what may be
    lost without harm, and for what a newer version may have written."""
    try:
        found = json.loads(content)
    except (RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class RepeatedKey(ValueError):
    """An object of a JSON text has a key twice, of which readers take the last."""


def parse_text(text: str) -> Any:
    """Parse a JSON text whose objects have each key once.

    Raises:
        RepeatedKey: an object has a key twice.
        ValueError: the text is no JSON.
        RecursionError: its values are nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its keys and values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RepeatedKey(f"has {twice!r} twice in one object")
    return found


def parse(kind: type[T], found: Any, source: str) -> T:
    """Make a dataclass of a parsed JSON value.

    Args:
        kind: the dataclass.
        found: the value.
        source: where it stands, for errors.

    Raises:
        BadInput: a field is missing, unknown (if ``kind`` forbids that) or of the wrong type, or a
            text in it cannot be written as UTF-8.
    """
    parsed = _validated(lambda adapter: adapter.validate_python(found), kind, source)
    for name, value in found.items() if isinstance(found, dict) else ():
        for text in value if isinstance(value, list) else (value,):
            if isinstance(text, str) and not is_whole(text):
                raise BadInput(
                    f"{source}: {name} has half of a character, as texts have that were cut off: "
                    f"{text[-QUOTED:]!r}; write it whole, or leave it away"
                )
    return parsed


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _validated(validate: Callable[[TypeAdapter[T]], T], kind: type[T], source: str) -> T:
    """What ``validate`` makes of a dataclass's adapter.

    Raises:
        BadInput: a field is missing, unknown or of the wrong type.
    """
    from pydantic import ValidationError

    try:
        return validate(_adapter(kind))  # type: ignore[arg-type]  # a class is hashable
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
    location = wrong["loc"]
    either = location[-1:] in (("int",), ("float",))  # pydantic tried both for a number
    keys = location[:-1] if either else location
    field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    field = field.removeprefix(".") if keys else "the whole"
    if wrong["type"] == "unexpected_keyword_argument":
        names = [known.name for known in fields(kind)]  # type: ignore[arg-type]  # it is one
        if "version" in names:
            raise BadInput(f"{source} has {field}, which is unknown here: a newer version wrote it")
        raise unknown(f"field in {source}:", field, names)
    if wrong["type"] == "value_error":
        place = f"{source}: {field}" if keys else source
        raise BadInput(f"{place}: {wrong['ctx']['error']}")
    if wrong["type"] == "missing":
        raise BadInput(f"{source} lacks {field}")
    if wrong["type"] == "invalid_key":  # of a line of a CSV, say, with more cells than columns
        raise BadInput(f"{source} has a value without a name")
    kind_of = "float" if either else wrong["type"].partition("_")[0]
    should = WORDS.get(kind_of) or wrong["msg"].removeprefix("Input should be ")
    given = wrong["input"]
    shown = json.dumps(given) if isinstance(given, bool | float | None) else repr(given)
    shown = shown if len(shown) <= QUOTED else f"{shown[:QUOTED]}..."
    allowed = re.findall("'(.*?)'", should) if wrong["type"] == "literal_error" else []
    close = did_you_mean(str(given), allowed).strip()
    raise BadInput(f"{source}: {field} should be {should}, not {shown}{close and f'; {close}'}")
