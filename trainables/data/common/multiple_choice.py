"""Options of multiple-choice questions, and how an answer to one is written.

The answer of a question with options is one of three: an option's text (``pneumonia``), its letter
(``B``), or both (``B: pneumonia``). A model is trained to answer as the question's answer is
written, and the likelihoods that ``--choose likelihood`` compares are those of all options written
in this way. Texts are compared without regard to case, width of characters, blanks and a full stop
at the end.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from trainables.data.common.wording import LETTERS, labelled

_LABEL = re.compile(r"\(?([A-Za-z])\s*[).:\u3001]\)?\s*")
"""A letter as it stands before the text of an option: ``B:``, ``B.``, ``B)`` or ``(B)``."""
_LETTER = re.compile(r"\(?([A-Za-z])[).:\u3001\u3002]?")
"""A letter that is a whole answer."""

WAYS: Mapping[str, Callable[[Sequence[str]], list[str]]] = {
    "text": list,
    "letter": lambda options: list(LETTERS[: len(options)]),
    "both": labelled,
}
"""Way in which answers name an option -> the options of a question written so."""


def cleaned(options: Sequence[str]) -> tuple[str, ...]:
    """Options without needless blanks, and without letters if each has its own (``A: text``).

    Raises:
        ValueError: there is one or none, there are more than letters, one is empty, or two are
            equal.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"options must be 2 to {len(LETTERS)} but there are {len(options)}")
    found = [" ".join(option.split()) for option in options]
    labels = [_LABEL.match(_one_width(option)) for option in found]
    if all(
        label is not None and label[1].upper() == letter
        for label, letter in zip(labels, LETTERS, strict=False)
    ):
        found = [_LABEL.sub("", _one_width(option), count=1) for option in found]
    places: dict[str, str] = {}
    for letter, option in zip(LETTERS, found, strict=False):
        if not option:
            raise ValueError(f"option {letter} is empty")
        first = places.setdefault(_key(option), letter)
        if first != letter:
            raise ValueError(f"options {first} and {letter} are equal: {option!r}")
    return tuple(found)


def written(answer: str, options: Sequence[str]) -> tuple[int, list[str]]:
    """Index of the option that a question's true answer is, and all options written as it is.

    Raises:
        ValueError: the answer is none of the options, or is the letter of one and the text of
            another.
    """
    place, way = _named(answer, options)
    return place, WAYS[way](options)


def usual_way(answered: Iterable[tuple[str, Sequence[str]]]) -> str:
    """The key of ``WAYS`` that most true answers are written by, of questions with options; empty
    if there are none.

    Args:
        answered: answer and options of each question.
    """
    counts = Counter(_named(answer, options)[1] for answer, options in answered if options)
    return max(counts, key=lambda way: counts[way]) if counts else ""


def _named(answer: str, options: Sequence[str]) -> tuple[int, str]:
    """Index of the option that a true answer is, and the key of ``WAYS`` that it is written by.

    Raises:
        ValueError: as ``written`` does.
    """
    ways = (("text", _by_text), ("letter", _by_letter), ("both", _by_both))
    found = [(place, way) for way, match in ways if (place := match(answer, options)) is not None]
    if not found:
        raise ValueError(
            f"answer {answer!r} is none of its options: {'; '.join(labelled(options))}"
        )
    if len({place for place, _ in found}) > 1:
        raise ValueError(
            f"answer {answer!r} is the letter of one option and the text of another; "
            f"write both, as {labelled(options)[found[0][0]]!r}"
        )
    return found[0]


def exactly(answer: str, options: Sequence[str]) -> int | None:
    """Index of the option that an answer is, written in any of the three ways; texts come first.
    None if it is none."""
    for match in (_by_text, _by_letter, _by_both):
        if (place := match(answer, options)) is not None:
            return place
    return None


def same(answer: str, options: Sequence[str]) -> int | None:
    """Index of the text that equals an answer, as texts are compared here; None if none does."""
    return _by_text(answer, options)


def _by_text(answer: str, options: Sequence[str]) -> int | None:
    keys = [_key(option) for option in options]
    return keys.index(_key(answer)) if _key(answer) in keys else None


def _by_letter(answer: str, options: Sequence[str]) -> int | None:
    found = _LETTER.fullmatch(_one_width(answer).strip())
    return _place(found[1], options) if found else None


def _by_both(answer: str, options: Sequence[str]) -> int | None:
    text = _one_width(answer).strip()
    found = _LABEL.match(text)
    if found is None or (place := _place(found[1], options)) is None:
        return None
    text = text[found.end() :]
    return place if _key(text) == _key(options[place]) else None


def _place(letter: str, options: Sequence[str]) -> int | None:
    """Index of the option that has a letter; None if there are fewer options."""
    place = LETTERS.index(letter.upper())
    return place if place < len(options) else None


def _key(text: str) -> str:
    """A text in the form in which it is compared."""
    return " ".join(_one_width(text).casefold().split()).rstrip(".\u3002") or text


def _one_width(text: str) -> str:
    """A text whose characters of full or half width are the usual ones (Unicode's NFKC)."""
    return unicodedata.normalize("NFKC", text)
