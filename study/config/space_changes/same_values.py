"""Values of a setting that mean the same, as ``all`` and ``attention,ffn,projection`` do for LoRA's
targets. A study tries one of them, the one that the space's file names first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

from search_spaces.declare import (
    Arm,
    ByBand,
    Choice,
    LogUniform,
    MethodRanges,
    Range,
    Space,
    TrainingRanges,
    Uniform,
)
from trainables.engine.training_settings import TrainingSettings
from trainables.errors import BadInput
from trainables.recipe import Tuning

Meaning = Callable[[Any], Hashable]
"""Function of a value; it is equal for values with which a trial is the same."""


def as_it_is(value: Any) -> Hashable:
    """Meaning of a value that is a number or a text: 2 and 2.0 are the same, 1 and True are not."""
    return isinstance(value, bool), value


def of_method(method: str, setting: str) -> Meaning:
    """Meaning of a value of a method's setting. Roles mean the same in any order, and three equal
    values for the thirds of the layers mean the one value."""

    def meaning(value: Any) -> Hashable:
        try:
            tuning = Tuning.parse(method, {setting: value})
        except BadInput:  # it can't be, or not with the other settings at their defaults
            return as_it_is(value)
        held = {**tuning.settings(), **tuning.of_any_method()}.get(setting, value)
        if not isinstance(held, tuple):
            return as_it_is(held)
        if all(isinstance(part, str) for part in held):
            return frozenset(held)
        return as_it_is(held[0] if len(set(held)) == 1 else held)

    return meaning


def of_training(setting: str, of_study: Mapping[str, Any]) -> Meaning:
    """Meaning of a value of a training setting. ``of_study`` has the study's values of settings
    that are the study's where a trial has None."""

    def meaning(value: Any) -> Hashable:
        try:
            held = getattr(TrainingSettings.from_plain({setting: value}), setting)
        except BadInput:
            return as_it_is(value)
        return as_it_is(of_study.get(setting) if held is None else held)

    return meaning


def distinct(space: Space, declared: Space, of_study: Mapping[str, Any]) -> Space:
    """The space with choices of which no two values mean the same. Values that mean the same as one
    of the space as ``declared`` in its file are written as there, so that a trial has the same id
    however the command line names them. ``of_study`` is as in ``of_training``."""
    arms = {name: _distinct(arm, declared.arms[name], of_study) for name, arm in space.arms.items()}
    return replace(space, arms=arms)


def _distinct(arm: Arm, declared: Arm, of_study: Mapping[str, Any]) -> Arm:
    slots = {}
    for slot, method in arm.slots.items():
        before = declared.slots[slot].settings
        settings = {
            name: _settled(value, before.get(name, value), of_method(method.name, name))
            for name, value in method.settings.items()
        }
        slots[slot] = MethodRanges(name=method.name, settings=settings)
    trained = {
        name: _settled(value, declared.training.get(name, value), of_training(name, of_study))
        for name, value in arm.training.items()
    }
    lr = _settled(arm.lr, declared.lr, as_it_is)
    return Arm(lr=lr, training=TrainingRanges(settings=trained), **slots)


def _settled(value: Any, before: Any, meaning: Meaning) -> Any:
    """A value or range, written as ``before`` has it; of a choice, the first value of each
    meaning."""
    if isinstance(value, ByBand):
        befores = before.parts() if isinstance(before, ByBand) else value.parts()
        parts = value.parts().items()
        return ByBand(**{band: _settled(part, befores[band], as_it_is) for band, part in parts})
    if isinstance(value, Uniform | LogUniform):
        return value
    names = before.values if isinstance(before, Choice) else (before,)
    written = {meaning(n): n for n in reversed(names) if not isinstance(n, ByBand | Range)}
    if not isinstance(value, Choice):
        return written.get(meaning(value), value)
    firsts: dict[Hashable, Any] = {}
    for one in value.values:
        firsts.setdefault(meaning(one), one)
    return Choice(*(written.get(what, one) for what, one in firsts.items()))
