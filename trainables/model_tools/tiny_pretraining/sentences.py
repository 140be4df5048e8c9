"""General and radiology-like sentences for pretraining, with questions that they answer.

The model reads a short report and a question as one text ("ct of the chest . two small nodules in
the left lung . how many does it report ?") and generates the answer; the picture beside it has
nothing to do with it. In this way the text stacks meet the words of radiology, and the decoder
learns to generate them, without one radiological image. ``read`` draws a question; ``words`` lists
every word that can occur, from which the vocabulary is made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from trainables.model_tools.tiny_pretraining import topics
from trainables.model_tools.tiny_pretraining import words as word_lists
from trainables.model_tools.tiny_pretraining.topics import NUMBERS
from trainables.model_tools.tiny_pretraining.words import (
    COLOURS,
    FINDINGS,
    MODALITIES,
    MODALITY_NAMES,
    PAIRED,
    PLANES,
    ROOMS,
    SIDES,
    SINGLE,
    SIZES,
    THINGS,
    TONES,
)

QuestionAnswer = tuple[str, str]
T = TypeVar("T")

OPENINGS = (
    "{modality} of the {organ} .",
    "{plane} {modality} of the {organ} .",
    "this is a {plane} {modality} image of the {organ} .",
    "the {modality} scan shows the {organ} .",
    "{modality} , {plane} plane , {organ} .",
    "the {organ} was imaged with {modality} in the {plane} plane .",
    "a {plane} slice of the {organ} by {modality} .",
    "the picture is a {plane} {modality} of the {organ} .",
    "{modality} examination , {organ} .",
)
FOUND = (
    "{number} {size} {finding} on the {side} .",
    "there are {number} {size} {tone} {finding} in the {side} part .",
    "it shows {number} {tone} {finding} of {size} size on the {side} side .",
    "{number} {finding} are seen , {size} and {tone} , {side} .",
    "on the {side} lie {number} {size} {finding} .",
    "count of {finding} : {number} , size : {size} , side : {side} .",
    "{size} {finding} are visible , {number} in all , {side} side .",
    "a {size} {tone} {finding} is present on the {side} .",
    "we see a {size} {finding} in the {side} half .",
    "the {side} one has a {tone} {finding} , {size} in size .",
)
NOT_FOUND = (
    "it is normal .",
    "no {finding} is seen .",
    "there is no {finding} .",
    "nothing abnormal is shown .",
    "without {finding} , a normal finding .",
)
ASK_OPEN = {
    "modality": (
        "which {modality_name} does it name ?",
        "what {modality_name} was used for it ?",
        "it was made by which {modality_name} ?",
    ),
    "plane": ("which plane is named ?", "what is the plane of it ?", "in which plane was it cut ?"),
    "organ": (
        "which organ is named ?",
        "which part of the body is meant ?",
        "what organ is it about ?",
    ),
    "finding": (
        "what was found ?",
        "which abnormality is reported ?",
        "name the finding of the report",
    ),
    "size": ("how large is it said to be ?", "which size is given ?", "the size is ?"),
    "tone": ("how does the finding look ?", "bright or dark , as reported ?"),
    "side": ("on which side is that ?", "which side is named ?", "the side is ?"),
    "number": ("how many does it report ?", "what count is given ?", "the number is ?"),
}
ASK_CLOSED = {
    "modality": ("is it said to be {value} ?", "was {value} used for it ?"),
    "plane": ("is the plane named {value} ?", "was it cut in the {value} plane ?"),
    "organ": ("is it about the {value} ?", "does it name the {value} ?"),
    "finding": ("was a {value} reported ?", "does it tell of {value} ?"),
    "size": ("is it said to be {value} ?", "is the size given as {value} ?"),
    "tone": ("is it called {value} ?",),
    "side": ("does it lie {value} , as said ?", "is {value} the side named ?"),
    "number": ("does it report {value} ?", "is the count {value} ?"),
}
ASK_NORMAL = ("is that normal or abnormal ?", "normal or abnormal , by the report ?")
ASK_IF_NORMAL = ("is that reported as normal ?", "does the report call it normal ?")
ASK_IF_ABNORMAL = ("is that reported as abnormal ?", "does it report an abnormality ?")

SCENES = (
    "the {colour} {thing} stands {side} of the {room} .",
    "in the {room} there are {number} {thing} , all {colour} .",
    "a {size} {thing} , {colour} , is in the {room} on the {side} .",
    "we saw {number} {size} {colour} {thing} near the {room} .",
)
ASK_SCENE = {
    "colour": ("what color is it ?", "which color does it have ?"),
    "thing": ("what thing is it ?", "which thing is told of ?"),
    "room": ("where was that ?", "in what place is it ?"),
    "side": ASK_OPEN["side"],
    "number": ("how many were they ?", "how many of them ?"),
    "size": ("how big was it ?", "which size is told ?"),
}
KNOWLEDGE = (
    ("what do we call a picture made with sound waves ?", "ultrasound"),
    ("what do we call a picture made with a strong magnet ?", "mri"),
    ("what do we call computed tomography ?", "ct"),
    ("what do we call a radiograph ?", "x ray"),
    ("which organ pumps the blood ?", "heart"),
    ("with which organ do we think ?", "brain"),
    ("with which organs do we breathe ?", "lungs"),
    ("which organs make water from blood ?", "kidneys"),
    ("where is water held in the body ?", "bladder"),
    ("which large organ lies below the right lung ?", "liver"),
    ("which organ lies at the left of the stomach ?", "spleen"),
    ("which plane parts left from right ?", "sagittal"),
    ("which plane parts front from back ?", "coronal"),
    ("which plane parts top from bottom ?", "axial"),
    ("what is a broken bone called ?", "fracture"),
    ("what is blood outside of its vessels called ?", "hemorrhage"),
    ("what is water around the lung called ?", "effusion"),
    ("what is a sac of water called ?", "cyst"),
    ("what is the other side of left ?", "right"),
    ("what is the other side of right ?", "left"),
    ("what is left and right together ?", "both"),
    ("what is the opposite of normal ?", "abnormal"),
    ("what is the opposite of yes ?", "no"),
    ("what is the opposite of no ?", "yes"),
)
REPEAT = ("say : {words}", "repeat {words}", "the answer is {words} . what is the answer ?")


def read(rng: np.random.Generator) -> QuestionAnswer:
    """Draw a text with a question at its end, in lower case, and the answer."""
    kind = rng.random()
    if kind < 0.6:
        return _report(rng)
    if kind < 0.75:
        return _scene(rng)
    if kind < 0.85:
        return _pick(rng, KNOWLEDGE)
    return _repeat(rng)


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _fill(form: str, facts: dict[str, str]) -> str:
    """Replace the slots of ``form`` by facts."""
    return re.sub(r"\{(\w+)\}", lambda slot: facts[slot[1]], form)


def _facts(rng: np.random.Generator) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Draw a value for every slot of the sentences; also return what it could have been."""
    paired = bool(rng.integers(2))
    choices: dict[str, tuple[str, ...]] = {
        "modality": MODALITIES[:4] if rng.random() < 0.8 else MODALITIES,
        "plane": PLANES[:3] if rng.random() < 0.8 else PLANES,
        "organ": PAIRED if paired else SINGLE,
        "finding": FINDINGS,
        "size": SIZES[:3] if rng.random() < 0.8 else SIZES,
        "tone": TONES[:2] if rng.random() < 0.8 else TONES,
        "side": (*SIDES, "both") if rng.random() < 0.5 else SIDES,
        "number": NUMBERS[1:] if rng.integers(2) else tuple("12345"),
        "colour": COLOURS,
        "thing": THINGS,
        "room": ROOMS,
        "modality_name": MODALITY_NAMES,
    }
    return {name: _pick(rng, options) for name, options in choices.items()}, choices


def _report(rng: np.random.Generator) -> QuestionAnswer:
    """Draw a radiology-like report with a question about it."""
    facts, choices = _facts(rng)
    opening, healthy = _pick(rng, OPENINGS), bool(rng.random() < 0.25)
    finding = _pick(rng, NOT_FOUND if healthy else FOUND)
    parts = [opening, finding] if rng.random() < 0.75 else [opening if healthy else finding]
    text = " ".join(_fill(part, facts) for part in parts)
    if (healthy and len(parts) == 2) or (not healthy and rng.random() < 0.15):
        return _about_health(rng, text, facts, healthy)
    asked = _pick(rng, [name for name in ASK_OPEN if f"{{{name}}}" in " ".join(parts)])
    if rng.random() < 0.65:
        return f"{text} {_fill(_pick(rng, ASK_OPEN[asked]), facts)}", facts[asked]
    others = [value for value in choices[asked] if value != facts[asked]]
    truth = bool(rng.integers(2))
    value = facts[asked] if truth else _pick(rng, others)
    return f"{text} {_fill(_pick(rng, ASK_CLOSED[asked]), {'value': value})}", _yes(truth)


def _about_health(
    rng: np.random.Generator, text: str, facts: dict[str, str], healthy: bool
) -> QuestionAnswer:
    """Ask whether a report is normal, or how many there are of what it denies."""
    kind = int(rng.integers(4))
    if kind == 0:
        return f"{text} {_pick(rng, ASK_NORMAL)}", "normal" if healthy else "abnormal"
    if kind == 1:
        return f"{text} {_pick(rng, ASK_IF_NORMAL)}", _yes(healthy)
    if kind == 2 or not healthy:
        return f"{text} {_pick(rng, ASK_IF_ABNORMAL)}", _yes(not healthy)
    none = _pick(rng, (("how many , in words ?", "zero"), ("how many , in digits ?", "0")))
    return f"{text} {none[0]}", none[1]


def _scene(rng: np.random.Generator) -> QuestionAnswer:
    """Draw an everyday scene with a question about it."""
    facts, _ = _facts(rng)
    scene = _pick(rng, SCENES)
    asked = _pick(rng, [name for name in ASK_SCENE if f"{{{name}}}" in scene])
    return f"{_fill(scene, facts)} {_pick(rng, ASK_SCENE[asked])}", facts[asked]


def _repeat(rng: np.random.Generator) -> QuestionAnswer:
    """Ask for one to three words of the vocabulary to be repeated.

    In this way the decoder generates every word now and then.
    """
    said = " ".join(_pick(rng, _WORDS) for _ in range(int(rng.integers(1, 4))))
    if rng.random() < 0.1:  # a made-up word, so that pieces of words are generated, too
        said = _pick(rng, _WORDS)[: int(rng.integers(2, 5))] + _pick(rng, _WORDS)[-3:]
    return _pick(rng, REPEAT).replace("{words}", said), said


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def words() -> tuple[str, ...]:
    """All words of the sentences and of the picture questions, sorted."""
    return _WORDS


def _strings(value: object) -> list[str]:
    """All strings inside nested constants."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (str(key), *_strings(item))]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _strings(item)]
    if isinstance(value, topics.Topic):
        return [text for item in vars(value).values() for text in _strings(item)]
    return []


def _all_words() -> tuple[str, ...]:
    """All words in the constants of this module, ``topics`` and ``words``, sorted."""
    constants = [vars(topics), vars(word_lists), globals()]
    texts = [
        t for names in constants for key in names if key.isupper() for t in _strings(names[key])
    ]
    found = (re.findall(r"[a-z]+|[0-9]", re.sub(r"\{\w+\}|_", " ", text.lower())) for text in texts)
    return tuple(sorted({word for text in found for word in text}))


_WORDS = _all_words()
