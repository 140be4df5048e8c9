"""Errors that a user can cause, one line each: what was given, what is allowed and what to do."""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import re
from collections.abc import Iterable

from trainables.secrecy import without_secrets

HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""Pattern of a surrogate, half of a character."""

CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Pattern of a character that controls a terminal or turns the direction of a line."""
MAYBE_CONTROL = re.compile(r"\\[uU]|\\[bfr]|[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Pattern of what a JSON document has that has a control character in a text, and others too."""
JSON_CHARACTER = re.compile(
    r"\\u[\da-fA-F]{4}|\\.|[\x7f-\x9f\u202a-\u202e\u2066-\u2069]", re.DOTALL
)
"""Pattern of a character of a JSON text that is written with a backslash, or that turns the
direction of a line or controls a terminal."""


LONGEST = 2_000
"""Largest number of letters of a message."""


class BadInput(ValueError):
    """Input that the user can correct. Commands print the message as one line and exit with code 2.

    Secrets are cut out of the message (``trainables.secrecy``), and it is made one ``printable``
    line of no more than ``LONGEST`` letters: it may quote a file, a library or a long value.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(printable(without_secrets(message))))


class NoMatchingLayer(BadInput):
    """A method finds no layer to train in a slot; ``lacks`` names the layers that it looked for."""

    def __init__(self, message: str, *, lacks: str) -> None:
        super().__init__(message)
        self.lacks = lacks


def printable(text: str) -> str:
    """A text as one line, in which what would act on a terminal is written as Python writes it.

    >>> printable("a\\tfile\\x1b[31m")
    'a file\\\\x1b[31m'
    """
    if text.isprintable():
        return text
    line = re.sub(r"\s*[^\S ]\s*", " ", text.strip())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def shortened(line: str) -> str:
    """A line of no more than ``LONGEST`` letters, without what is in its middle: a message begins
    with what was given and ends with what is allowed."""
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2 - 20
    return f"{line[:half]} [{len(line) - 2 * half} letters left out] {line[-half:]}"


def without_controls(document: str) -> str:
    """A JSON document in whose texts what would act on a terminal is written as Python writes it.
    Ends of lines and tabs stay.

    >>> without_controls('["a\\\\u001b[31m\\\\n"]')
    '["a\\\\\\\\x1b[31m\\\\n"]'
    """
    if MAYBE_CONTROL.search(document) is None:
        return document

    def instead(found: re.Match[str]) -> str:
        character = found[0] if len(found[0]) == 1 else json.loads(f'"{found[0]}"')
        if CONTROL.fullmatch(character) is None:  # other blanks are text
            return found[0]
        return json.dumps(character.encode("unicode_escape").decode())[1:-1]

    return JSON_CHARACTER.sub(instead, document)


def is_whole(text: str) -> bool:
    """Whether a text can be written as UTF-8. One with a half of a character cannot: JSON's
    ``\\ud83d`` without its other half becomes one, and so does a byte of a command line that is no
    UTF-8."""
    return text.isascii() or HALF_CHARACTER.search(text) is None


def unknown(kind: str, given: str, allowed: Iterable[str]) -> BadInput:
    """Error for a name that does not exist, with the closest match and the names that do exist.

    >>> str(unknown("method", "lorra", ["lora", "ia3"]))
    "unknown method 'lorra'; did you mean 'lora'? There are: ia3, lora"
    """
    names = sorted(allowed)
    close = did_you_mean(given, names)
    there = f"{'There' if close else 'there'} are: {', '.join(names) or 'none'}"
    return BadInput(f"unknown {kind} {given!r}; {close}{there}")


def too_old(what: str, package: str, oldest: str, instead: str = "") -> BadInput | None:
    """Error for an installed package that is older than something needs; None if it is not. The
    package is not imported, since importing it takes seconds.

    Args:
        what: what needs the package.
        package: name of the package.
        oldest: oldest version that will do, in numbers: ``5.8`` or ``5.8.1``.
        instead: what else the user may do, such as ``give adamw``.
    """
    installed = importlib.metadata.version(package)
    if _numbers(installed) >= _numbers(oldest):
        return None
    advice = f"pip install '{package}>={oldest}'" + (f", or {instead}" if instead else "")
    return BadInput(f"{what} needs {package} >= {oldest}, installed is {installed}: {advice}")


def _numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version; of ``2.6.0+cpu``, 2, 6 and 0."""
    numbers = [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]
    return tuple([*numbers, 0, 0][:3])


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Question after the allowed name that is closest to ``given``; empty if less than half of the
    letters agree."""
    close = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.51)
    return f"did you mean {close[0]!r}? " if close else ""
