"""Declarations that make up a search space: ``Space``, ``Arm``, ``method``, ``training``, ranges.

A search space is a question and the arms that compete to answer it. It is plain data: this module
imports neither torch nor ray, and names methods without loading them. ``study`` checks names and
values when it plans a study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_NAME = 60
"""Most characters that an arm's name may have."""
RESERVED = ("untuned", "majority")
"""Names that no arm may have: those of the baselines in every table."""


@dataclass(frozen=True)
class Choice:
    """A range of listed values: texts, numbers, bools, None, or tuples of these, which the journal
    can store as JSON. Of values that mean the same, as 2 and 2.0, a study tries the first."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if not values:
            raise ValueError("Choice needs at least one value")
        for value in values:
            parts = value if isinstance(value, tuple) else (value,)
            if not all(isinstance(part, bool | int | float | str | None) for part in parts):
                raise ValueError(
                    "Choice takes texts, numbers, bools, None and tuples of these but got "
                    f"{value!r}; give each such value as it is, in an arm of its own"
                )
        object.__setattr__(self, "values", values)


@dataclass(frozen=True)
class Uniform:
    """A range of numbers between ``low`` and ``high``, all equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"Uniform needs low < high but got {self.low} and {self.high}")


@dataclass(frozen=True)
class LogUniform:
    """A range of positive numbers between ``low`` and ``high``, uniform on a logarithmic scale."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high and math.isfinite(self.high)):
            raise ValueError(f"LogUniform needs 0 < low < high but got {self.low} and {self.high}")


Range = Choice | Uniform | LogUniform


@dataclass(frozen=True, kw_only=True)
class ByBand:
    """A setting that has a value or range of its own in each third of a slot's layers, as
    ``rank=ByBand(first=4, middle=Choice(4, 8), last=Choice(8, 16))``. Methods that allow it name
    the setting in ``BY_BAND`` of their ``Config``."""

    first: Any
    middle: Any
    last: Any

    def parts(self) -> dict[str, Any]:
        """Name of each third -> its value or range."""
        return {"first": self.first, "middle": self.middle, "last": self.last}


@dataclass(frozen=True)
class MethodRanges:
    """A fine-tuning method and its settings, each a value or a range; made by ``method``."""

    name: str
    settings: Mapping[str, Any]


def method(name: str, **settings: Any) -> MethodRanges:
    """Name a method (a file of ``trainables/methods``), with a value or range for each setting."""
    if not isinstance(name, str):
        raise ValueError(f"method needs the name of a method but got {name!r}")
    return MethodRanges(name=name, settings=settings)


@dataclass(frozen=True)
class TrainingRanges:
    """Training settings, each a value or a range; made by ``training``."""

    settings: Mapping[str, Any]


def training(**settings: Any) -> TrainingRanges:
    """Name training settings, with a value or range for each: those of ``TrainingSettings``
    (``trainables/engine/training_settings.py``), such as ``weight_decay``, and ``batch_size``.

    ``training(prompt=Choice("{question}", "{question} Answer with one word."))`` searches how
    questions are asked.
    """
    return TrainingRanges(settings=settings)


class Arm:
    """One contender of a search space: its methods by slot, and the range of its learning rate.

    ``Arm(everywhere=method("lora", rank=Choice(4, 8)), lr=...)`` searches one rank for all slots.
    ``Arm(vision=method("frozen"), fusion=method("full"), decoder=method("lora"), lr=...)`` names a
    method for each slot of the model family.
    ``Arm(everywhere=..., lr=..., training=training(warmup=Choice(0.0, 0.05)))`` also searches how
    the arm is trained; what it does not name is the space's or has its default.
    """

    def __init__(
        self, *, lr: Range | float, training: TrainingRanges | None = None, **slots: MethodRanges
    ) -> None:
        if not slots:
            raise ValueError("an Arm needs everywhere=method(...) or a method for each slot")
        if "everywhere" in slots and len(slots) > 1:
            raise ValueError("an Arm has either everywhere=... or a method for each slot, not both")
        for slot, ranges in slots.items():
            if not isinstance(ranges, MethodRanges):
                raise ValueError(f"{slot} of an Arm must be method(...) but got {ranges!r}")
        low = lr.low if isinstance(lr, Uniform | LogUniform) else lr
        values = lr.values if isinstance(lr, Choice) else (low,)
        if not all(isinstance(v, int | float) and 0 < v < math.inf for v in values):
            raise ValueError(f"the lr of an Arm must be positive but got {lr}")
        if not isinstance(training, TrainingRanges | None):
            raise ValueError(f"training of an Arm must be training(...) but got {training!r}")
        self.lr = lr
        self.slots = slots
        self.training: Mapping[str, Any] = training.settings if training else {}
        """Training settings, each a value or a range."""

    def with_training(self, others: Mapping[str, Any]) -> Arm:
        """The arm with training settings of ``others`` where it names none itself."""
        merged = TrainingRanges(settings={**others, **self.training})
        return Arm(lr=self.lr, training=merged, **self.slots)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Trials and training examples of a study of this space, unless the user asks for others."""

    trials: int = 0
    """Number of trials in the search, or the most if it ends once all arms are tuned. 0: it follows
    from the number of ranges of each arm. Confirming each arm's best configuration adds more."""
    max_examples: int = 6400
    """Number of training examples of a trial that is never stopped, repeated ones counted. Where
    ``epochs`` are given, it is what they come to."""
    reduction: int = 3
    """Factor between one rung and the next. With ``--stop asha`` and ``hyperband`` one trial in
    ``reduction`` goes on at each rung."""
    rungs: int = 3
    """Number of rungs before the end of a trial."""
    batch_size: int = 32
    """Number of training examples in a batch."""
    epochs: float | None = None
    """Budget of a trial in passes over the training split, given in place of ``max_examples``."""

    def __post_init__(self) -> None:
        for name, (least, most) in {
            "trials": (0, 10**6),
            "max_examples": (1, 10**12),
            "reduction": (2, 1000),
            "rungs": (0, 100),
            "batch_size": (1, 10**6),
        }.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number but got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least} but got {value}")
            if value > most:
                raise ValueError(f"{name} must be at most {most:,} but got {value:,}")
        if self.epochs is not None:
            if isinstance(self.epochs, bool) or not isinstance(self.epochs, int | float):
                raise ValueError(f"epochs must be a number but got {self.epochs!r}")
            if not 0 < self.epochs < math.inf:
                raise ValueError(f"epochs must be more than 0 but got {self.epochs}")


@dataclass(frozen=True, kw_only=True)
class Space:
    """A question, the arms that compete to answer it, and a budget that suits it."""

    question: str
    arms: Mapping[str, Arm]
    """Arms by name. Those of ``Space.arms`` have the space's training settings too."""
    budget: Budget = field(default_factory=Budget)
    training: TrainingRanges | None = None
    """Training settings of all arms that do not name others."""
    against: str | None = None
    """Arm with which each other arm is compared, and no others with each other; None: all pairs of
    arms are compared. Fewer comparisons show smaller differences."""
    declared: tuple[str, ...] = ()
    """Names of all arms, also of those that a copy of the space leaves out; it follows from
    ``arms``. The colours of arms do not change where a study runs some of them."""

    def __post_init__(self) -> None:
        if not isinstance(self.question, str):
            raise ValueError(f"the question of a Space must be a text but got {self.question!r}")
        if not isinstance(self.arms, Mapping):
            raise ValueError(
                f"arms of a Space must be {{name: Arm(...)}} but got a {type(self.arms).__name__}"
            )
        object.__setattr__(self, "declared", tuple(dict.fromkeys([*self.declared, *self.arms])))
        if not self.arms:
            raise ValueError("a Space needs at least one arm")
        if not isinstance(self.budget, Budget):
            raise ValueError(f"the budget of a Space must be Budget(...) but got {self.budget!r}")
        if self.budget.epochs is not None and self.budget.max_examples != Budget.max_examples:
            raise ValueError(
                f"the budget of a Space has epochs={self.budget.epochs:g} and "
                f"max_examples={self.budget.max_examples}: give one"
            )
        for name, arm in self.arms.items():
            if not isinstance(arm, Arm):
                raise ValueError(f"arm {name!r} of a Space must be Arm(...) but got {arm!r}")
            if not _names_an_arm(name):
                raise ValueError(
                    "the name of an arm must begin with a letter or digit and have at most "
                    f"{LONGEST_NAME} characters, none of them '/' or '\\', but got {name!r}"
                )
            if name in RESERVED:
                raise ValueError(f"an arm cannot be called {name!r}, as a baseline is")
        if self.against is not None and self.against not in self.declared:
            raise ValueError(
                f"a Space compares its arms against one of them but got against={self.against!r}; "
                f"there are: {', '.join(self.declared)}"
            )
        if not isinstance(self.training, TrainingRanges | None):
            raise ValueError(f"training of a Space must be training(...) but got {self.training!r}")
        if self.training is not None:
            shared = self.training.settings
            arms = {name: arm.with_training(shared) for name, arm in self.arms.items()}
            object.__setattr__(self, "arms", arms)


def _names_an_arm(name: object) -> bool:
    """Whether a name will do for an arm, and so for the folder that its export is in."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        return False
    return name[0].isalnum() and name.isprintable() and not {"/", "\\"} & set(name)
