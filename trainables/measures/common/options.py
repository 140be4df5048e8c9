"""Which option an answer to a multiple-choice question names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainables.data.common.dataset import Example
from trainables.data.common.multiple_choice import exactly, same, written
from trainables.data.common.wording import LETTERS
from trainables.measures.common.normalize import normalize
from trainables.measures.common.scripts import folded, words

YES_NO = ("yes", "no")
"""Possible answers to a closed question without options."""
_LEADING = re.compile(
    r"\W*(?:the\s+)?(?:(?:correct\s+|best\s+)?(?:answer|option|choice)\s*(?:is\b)?\s*:?\s*)?"
    r"\(?([a-z])\s*(?:[).:\u3001]|$)",
    re.IGNORECASE,
)
"""A letter with which an answer begins, as in ``B: ...``, ``(B)`` or ``The answer is B.``"""


def true_option(example: Example) -> int:
    """Index of the option that is right."""
    place, _ = written(example.answer, example.options)
    return place


def choices_of(example: Example) -> tuple[tuple[str, ...], int]:
    """The possible answers to a closed question, and the index of the true one: its options,
    written as the true answer is, or yes and no, in the true answer's case; none, and -1, if they
    are not known."""
    if example.options:
        place, ways = written(example.answer, example.options)
        return tuple(ways), place
    bare = example.answer.strip().rstrip(".")
    if example.answer_type != "closed" or bare.lower() not in YES_NO:
        return (), -1
    as_written = str.upper if bare.isupper() else str.title if bare.istitle() else str.lower
    return tuple(as_written(word) for word in YES_NO), YES_NO.index(bare.lower())


def named(answer: str, example: Example) -> int | None:
    """Index of the option that an answer names; None if it names none.

    An answer that is an option, written as the true answer is or in another way (text, letter, or
    both), names it. Any other names the option whose letter it begins with, or whose words it has
    and no other's, where words are compared as answers are. If letter and words are of two options,
    it names none. Taking a letter or else the only option whose text occurs is the rule of
    VLMEvalKit (``vlmeval/utils/matching_util.py`` of github.com/open-compass/VLMEvalKit).
    """
    options = example.options
    _, own = written(example.answer, options)
    for place in (same(answer, own), exactly(answer, options)):
        if place is not None:
            return place
    found = {_by_words(answer, options), _leading(answer, options)} - {None}
    return found.pop() if len(found) == 1 else None


def _leading(answer: str, options: Sequence[str]) -> int | None:
    """Index of the option with whose letter an answer begins."""
    found = _LEADING.match(folded(answer))
    place = LETTERS.index(found[1].upper()) if found else len(options)
    return place if place < len(options) else None


def _by_words(answer: str, options: Sequence[str]) -> int | None:
    """Index of the only option whose words an answer has, one after another. An option that is a
    part of another one that the answer has does not count."""
    given = f" {_spaced(answer)} "
    texts = [_spaced(option) for option in options]
    had = [place for place, text in enumerate(texts) if text and f" {text} " in given]
    whole = [
        place
        for place in had
        if not any(
            f" {texts[place]} " in f" {texts[other]} " and texts[place] != texts[other]
            for other in had
        )
    ]
    return whole[0] if len(whole) == 1 else None


def _spaced(text: str) -> str:
    """A normalised text with a blank between its words."""
    return " ".join(words(normalize(text)))
