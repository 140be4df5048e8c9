"""What a user can get wrong, said in one line: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from trainables.secrecy import without_secrets


class BadInput(ValueError):
    """Input that the user can mend. Commands print it as one line and leave with exit code 2.

    It says no secret that was given: see ``trainables.secrecy``.
    """

    def __init__(self, said: str) -> None:
        super().__init__(without_secrets(said))


class NothingThere(BadInput):
    """A method finds none of its layers in a slot; ``lacks`` names them."""

    def __init__(self, said: str, *, lacks: str) -> None:
        super().__init__(said)
        self.lacks = lacks


def unknown(kind: str, given: str, allowed: Iterable[str]) -> BadInput:
    """The error for a name that does not exist, with what exists and the closest match.

    >>> str(unknown("method", "lorra", ["lora", "ia3"]))
    "unknown method 'lorra'; did you mean 'lora'? There are: ia3, lora"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return BadInput(f"unknown {kind} {given!r}; {hint}There are: {', '.join(names) or 'none'}")
