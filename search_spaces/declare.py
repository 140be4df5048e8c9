"""The words in which a search space is written: ``Space``, ``Arm``, ``method`` and ranges.

A space is a question with its contenders. It is plain data: neither torch nor ray is imported, and
methods are named, not loaded; ``study`` checks names and values when it plans a study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_NAME = 60
"""Characters of an arm's name."""


@dataclass(frozen=True)
class Choice:
    """One of these values: numbers, strings, bools or None, as the study's journal keeps them."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if not values:
            raise ValueError("Choice needs at least one value")
        for value in values:
            if not isinstance(value, bool | int | float | str | None):
                raise ValueError(
                    f"Choice takes numbers, strings, bools and None but got {value!r}; "
                    "give each such value as it is, in an arm of its own"
                )
        object.__setattr__(self, "values", values)


@dataclass(frozen=True)
class Uniform:
    """A number between ``low`` and ``high``."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"Uniform needs low < high but got {self.low} and {self.high}")


@dataclass(frozen=True)
class LogUniform:
    """A positive number between ``low`` and ``high``, every factor equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high and math.isfinite(self.high)):
            raise ValueError(f"LogUniform needs 0 < low < high but got {self.low} and {self.high}")


Range = Choice | Uniform | LogUniform


@dataclass(frozen=True)
class MethodRanges:
    """A method and its settings, each a value or a range. Made by ``method``."""

    name: str
    settings: Mapping[str, Any]


def method(name: str, **settings: Any) -> MethodRanges:
    """A fine-tuning method by name (a file of ``trainables/methods``), with values or ranges."""
    return MethodRanges(name=name, settings=settings)


class Arm:
    """One contender: a method for every slot, or one for each, and the learning rate's range.

    ``Arm(everywhere=method("lora", rank=Choice(4, 8)), lr=...)`` searches one rank for all slots;
    ``Arm(vision=method("frozen"), fusion=method("full"), decoder=method("lora"), lr=...)`` names
    each slot of the model family.
    """

    def __init__(self, *, lr: Range | float, **slots: MethodRanges) -> None:
        if not slots:
            raise ValueError("an Arm needs everywhere=method(...) or a method for each slot")
        if "everywhere" in slots and len(slots) > 1:
            raise ValueError("an Arm has either everywhere=... or a method for each slot, not both")
        for slot, ranges in slots.items():
            if not isinstance(ranges, MethodRanges):
                raise ValueError(f"{slot} of an Arm must be method(...) but got {ranges!r}")
        low = lr.low if isinstance(lr, Uniform | LogUniform) else lr
        values = lr.values if isinstance(lr, Choice) else (low,)
        if not all(isinstance(v, int | float) and v > 0 for v in values):
            raise ValueError(f"the lr of an Arm must be positive but got {lr}")
        self.lr = lr
        self.slots = slots


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a study of this space spends unless told otherwise."""

    trials: int = 24
    """Trials of the search; the confirmation of each arm's best comes on top."""
    max_examples: int = 6400
    """Training examples of a trial that is never stopped, repeated ones counted."""
    reduction: int = 3
    """ASHA keeps one trial of ``reduction`` at a rung; rungs are that factor apart."""
    rungs: int = 3
    """Rungs before the end of a trial."""
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name, least in {
            "trials": 1,
            "max_examples": 1,
            "reduction": 2,
            "batch_size": 1,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least} but got {getattr(self, name)}")
        if self.rungs < 0:
            raise ValueError(f"rungs must not be negative but got {self.rungs}")


@dataclass(frozen=True, kw_only=True)
class Space:
    """A question, the arms that contend for the answer, and the budget that suits it."""

    question: str
    arms: Mapping[str, Arm]
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError("a Space needs at least one arm")
        for name in self.arms:
            if not _names_an_arm(name):
                raise ValueError(
                    "the name of an arm must begin with a letter or digit and have at most "
                    f"{LONGEST_NAME} characters, none of them '/' or '\\', but got {name!r}"
                )


def _names_an_arm(name: object) -> bool:
    """What is exported of an arm lies in a folder of its name."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        return False
    return name[0].isalnum() and name.isprintable() and not {"/", "\\"} & set(name)
