"""Narrows a search space as the command line asks: ``--arm`` leaves some of its arms, and ``--set``
gives a setting other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
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
from study.config import spaces
from trainables import registry
from trainables.engine.training_settings import DEFAULT_TRAINING
from trainables.errors import BadInput, unknown
from trainables.methods.common import layers
from trainables.recipe import OF_ANY_METHOD

FORM = "must be like lora.rank=4,8 or lr=0.001..0.01"
OF_BUDGET = ("epochs", "max_examples", "trials")
"""Parts of a study's budget, which have options of their own."""
TRAINING_DEFAULTS = {**dataclasses.asdict(DEFAULT_TRAINING), "label_smoothing": 0.0}
"""Training setting -> a value of its type, which is a whole number for others."""


def narrow(space: Space, arms: str | None, changes: Sequence[str]) -> Space:
    """The space with the arms that ``arms`` names (None: all), and changed by ``changes``.

    A change is ``NAME=VALUES``. NAME is ``lr``, a training setting such as ``warmup``,
    ``METHOD.SETTING`` or ``SLOT.METHOD.SETTING``; with ``ARM/`` before it, it is of that arm only.
    VALUES is one value, several with commas, or a range ``LOW..HIGH``; roles of one value are
    joined by ``+``, and values by band by ``/``. Several prompts have ``|`` between them. ``none``
    is None for training settings that may be None.

    Raises:
        BadInput: an arm or a setting does not exist, or a value is impossible.
    """
    if arms is not None:
        names = arms.split(",")
        for name in names:
            if name not in space.arms:
                raise unknown("arm", name, space.arms)
        if len(set(names)) < len(names):
            raise BadInput(f"--arm {arms} names an arm twice; name each once")
        kept = {name: arm for name, arm in space.arms.items() if name in names}
        if space.against is not None and space.against not in kept and len(kept) > 1:
            raise BadInput(
                f"--arm {arms} leaves out {space.against}, with which the other arms are compared; "
                "name it too, or another one by --against"
            )
        space = dataclasses.replace(space, arms=kept)
    named = [change.partition("=")[0] for change in changes]
    for change, name in zip(changes, named, strict=True):
        if named.count(name) > 1:
            raise BadInput(f"--set {name} is given {named.count(name)} times; give it once")
        try:
            space = _changed(space, change)
        except ValueError as error:
            raise BadInput(f"--set {change}: {error}") from None
    return space


def compared_against(space: Space, arm: str | None) -> Space:
    """The space whose arms are compared with ``arm`` alone (``--against``); None leaves it as it
    is.

    Raises:
        BadInput: there is no such arm.
    """
    if arm is None:
        return space
    if arm not in space.arms:
        raise unknown("arm", arm, space.arms)
    return dataclasses.replace(space, against=arm)


def options_text(arms: str | None, changes: Sequence[str] | None) -> str:
    """The options that narrow a space, as they were given; empty if none was."""
    given = [f"--arm {arms}"] if arms is not None else []
    return " ".join([*given, *(f"--set {change}" for change in changes or ())])


def _changed(space: Space, change: str) -> Space:
    """The space after one change.

    Raises:
        ValueError: the change has another form, names nothing, or a value is impossible.
    """
    name, equals, values = change.partition("=")
    of_arm, slash, setting = name.rpartition("/")
    if not equals or not setting:
        raise BadInput(FORM)
    if slash and of_arm not in space.arms:
        raise unknown("arm", of_arm, space.arms)
    concerned = {of_arm: space.arms[of_arm]} if slash else space.arms
    allowed = {found: None for arm in concerned.values() for found in _settings(arm)}
    if setting in OF_BUDGET:
        raise BadInput(f"it is no setting of an arm; give --{setting.replace('_', '-')}")
    if setting not in allowed:
        raise unknown("setting", setting, allowed)
    changed = {
        arm: _with(declared, setting, values)
        for arm, declared in concerned.items()
        if setting in _settings(declared)
    }
    for arm in changed.values():
        spaces.check(arm)
    return dataclasses.replace(space, arms={**space.arms, **changed})


def _with(arm: Arm, setting: str, values: str) -> Arm:
    """An arm whose ``setting`` has the values that a text lists."""
    lr = _parsed(values, 1.0, arm.lr, log=True) if setting == "lr" else arm.lr
    slots = dict(arm.slots)
    for slot, method in arm.slots.items():
        for name in _own(method):
            if setting in _names(slot, method, name):
                settings = _set(method, name, values)
                slots[slot] = MethodRanges(name=method.name, settings=settings)
    trained = dict(arm.training)
    if setting in spaces.TRAINING:
        default, before = TRAINING_DEFAULTS.get(setting, 1), trained.get(setting)
        trained[setting] = (
            _listed([None if _is_none(text) else text for text in values.split("|")])
            if setting in spaces.ASKING
            else _parsed(values, default, before, none=spaces.may_be_none(setting))
        )
    return Arm(lr=lr, training=TrainingRanges(settings=trained), **slots)


def _set(method: MethodRanges, name: str, values: str) -> dict[str, Any]:
    """Settings of a method, one of which (``rank``, or ``rank.last``) has other values."""
    whole, _, band = name.partition(".")
    before = method.settings.get(whole)
    default = _defaults(method)[whole]
    if isinstance(default, tuple) and ",query,value," in f",{values},":
        raise BadInput(
            "query,value would be a choice of one role or the other; give query+value for the two "
            "together, or value,query for the choice"
        )
    if isinstance(before, ByBand) and band:
        part = _parsed(values, default, getattr(before, band))
        return {**method.settings, whole: dataclasses.replace(before, **{band: part})}
    return {**method.settings, whole: _parsed(values, default, before)}


def _settings(arm: Arm) -> dict[str, None]:
    """Names of all settings of an arm, also of those that it leaves at their defaults."""
    of_slots = [
        name
        for slot, method in arm.slots.items()
        for own in _own(method)
        for name in _names(slot, method, own)
    ]
    return dict.fromkeys(["lr", *spaces.TRAINING, *of_slots])


def _names(slot: str, method: MethodRanges, setting: str) -> tuple[str, ...]:
    """Names of a setting: for all slots that have the method, and for one."""
    of_all = f"{method.name}.{setting}"
    return (of_all,) if slot == "everywhere" else (of_all, f"{slot}.{of_all}")


def _own(method: MethodRanges) -> Iterator[str]:
    """Settings of a method, and those of each band where they are declared by band."""
    for name in _defaults(method):
        yield name
        if isinstance(method.settings.get(name), ByBand):
            yield from (f"{name}.{band}" for band in layers.BANDS)


def _defaults(method: MethodRanges) -> Mapping[str, Any]:
    """Setting of a method -> its default."""
    config = registry.METHODS.find(method.name).Config()
    return {**dataclasses.asdict(config), **OF_ANY_METHOD}


def _parsed(
    values: str, default: Any, before: Any, *, log: bool = False, none: bool = False
) -> Any:
    """A value, a choice or a range, of the type of a setting's default, or None if ``none`` allows
    it.

    A range is logarithmic if ``log``, or if the one in the space was.

    Raises:
        ValueError: a value is not of that type, or a range is empty.
    """
    low, dots, high = values.partition("..")
    if dots:
        if not isinstance(default, float):
            raise BadInput(
                "a range LOW..HIGH is for settings that are decimal numbers; list the values"
            )
        kind = LogUniform if log or isinstance(before, LogUniform) else Uniform
        found: Range = kind(_value(low, default), _value(high, default))
        return found
    return _listed(
        [None if none and _is_none(text) else _value(text, default) for text in values.split(",")]
    )


def _listed(values: Sequence[Any]) -> Any:
    """The only one of some values, or a choice of those that differ."""
    different = list(dict.fromkeys(values))
    return Choice(*different) if len(different) > 1 else different[0]


def _is_none(text: str) -> bool:
    return text.strip().lower() == "none"


def _value(text: str, default: Any) -> Any:
    """A value of the type of ``default``; of roles, the text, which ``roles.parse`` reads."""
    if not text:
        raise BadInput(FORM)
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise BadInput(f"must be true or false, not {text!r}")
        return text.lower() == "true"
    if "/" in text and isinstance(default, int | float):
        return tuple(_value(part, default) for part in text.split("/"))
    kinds = {int: "a whole number", float: "a number"}
    if (kind := type(default)) not in kinds:
        return text
    try:
        return kind(text)
    except ValueError:
        raise BadInput(f"must be {kinds[kind]}, not {text!r}") from None
