"""Questions about the general pictures, with their answers.

``ask`` is the only entry point. A question is drawn in two steps. First come its topic and its
answer, so that yes and no come equally often and the answer cannot be guessed from the words; then
comes its wording.

Two kinds go beyond naming what is seen. *Renaming* questions say what a thing shall be called
("call a ring glass and a fan water . what is this ?"), so that the answer needs both sentence and
picture. *Counting* questions say whether the number is wanted in digits or in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from trainables.model_tools.tiny_pretraining.pictures import Facts
from trainables.model_tools.tiny_pretraining.topics import (
    ANY_ON_SIDE,
    ANY_SPOTS,
    HOW_MANY,
    IS_NUMBER,
    NEW_NAMES,
    NUMBERS,
    RENAMED_TOPICS,
    RENAMING,
    SAME_SIDES,
    SHAPE_NAMES,
    SPOT_NAMES,
    TOPICS,
    Topic,
)

QuestionAnswer = tuple[str, str]
T = TypeVar("T")


def ask(rng: np.random.Generator, facts: Facts) -> QuestionAnswer:
    """Draw one question about the picture, in lower case, with its answer."""
    kinds: tuple[Callable[[np.random.Generator, Facts], QuestionAnswer], ...] = (
        _open, _open, _open, _closed, _closed, _count, _any, _renamed,
    )  # fmt: skip
    question, answer = kinds[int(rng.integers(len(kinds)))](rng, facts)
    question = question.replace("{spots}", _pick(rng, SPOT_NAMES))
    return question.replace("{shape}", _pick(rng, SHAPE_NAMES)), answer


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _topic(rng: np.random.Generator, facts: Facts, among: Sequence[str]) -> tuple[Topic, str]:
    """Draw a topic that has an answer for this picture, with the answer."""
    possible = [
        (TOPICS[name], value)
        for name in among
        if (value := getattr(facts, name)) in TOPICS[name].values
        and (not TOPICS[name].needs_spots or facts.spots)
        # Within 3 pixels a square and a disc look the same.
        and (name != "spot_shape" or facts.spot_size != "small")
    ]
    return _pick(rng, possible)


def _open(rng: np.random.Generator, facts: Facts) -> QuestionAnswer:
    """Draw a question that is answered with a fact."""
    topic, value = _topic(rng, facts, tuple(TOPICS))
    return _pick(rng, topic.open_forms), value


def _closed(rng: np.random.Generator, facts: Facts) -> QuestionAnswer:
    """Draw a question about a fact that is answered with yes or no."""
    topic, value = _topic(rng, facts, tuple(TOPICS))
    truth = bool(rng.integers(2)) and value != "none"  # "is the rim none ?" is no question
    others = [other for other in topic.values if other not in (value, "none")]
    asked = value if truth else _pick(rng, others)
    return _pick(rng, topic.closed_forms).replace("{value}", asked), "yes" if truth else "no"


def _count(rng: np.random.Generator, facts: Facts) -> QuestionAnswer:
    """Draw a question about the number of spots."""
    number, digits = facts.spots, bool(rng.integers(2))
    names = tuple(str(n) for n in range(len(NUMBERS))) if digits else NUMBERS
    if rng.random() < 0.3:
        truth = bool(rng.integers(2))
        other = (number + int(rng.integers(1, len(names)))) % len(names)
        asked = names[number if truth else other]
        return _pick(rng, IS_NUMBER).replace("{value}", asked), "yes" if truth else "no"
    how = (
        _pick(rng, ("in digits", "as a digit")) if digits else _pick(rng, ("in words", "as a word"))
    )
    question = _pick(rng, HOW_MANY)
    return (f"{how} , {question}" if rng.integers(2) else f"{question} {how}"), names[number]


def _any(rng: np.random.Generator, facts: Facts) -> QuestionAnswer:
    """Draw a yes-no question about where there are spots, if any."""
    if not facts.spots or rng.random() < 0.2:
        return _pick(rng, ANY_SPOTS), "yes" if facts.spots else "no"
    if rng.random() < (0.5 if facts.spot_side == "both" else 0.2):
        return _pick(rng, SAME_SIDES), "yes" if facts.spot_side == "both" else "no"
    side = _pick(rng, ("left", "right"))
    answer = "yes" if facts.spot_side in (side, "both") else "no"
    return _pick(rng, ANY_ON_SIDE).replace("{value}", side), answer


def _renamed(rng: np.random.Generator, facts: Facts) -> QuestionAnswer:
    """Draw a question that gives two values new names, one of which is the answer."""
    topic, value = _topic(rng, facts, RENAMED_TOPICS)
    values = [value, _pick(rng, [other for other in topic.values if other != value])]
    first, second = rng.permutation(len(NEW_NAMES))[:2]
    names = [NEW_NAMES[first], NEW_NAMES[second]]
    order = [0, 1] if rng.integers(2) else [1, 0]
    question = _pick(rng, RENAMING)
    for slot, index in zip((("{one}", "{first}"), ("{other}", "{second}")), order, strict=True):
        question = question.replace(slot[0], values[index]).replace(slot[1], names[index])
    return question, names[0]
