"""Finds search spaces, checks them against the methods' settings, and draws trials from them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from search_spaces.declare import Arm, ByBand, Choice, LogUniform, Range, Space, Uniform
from trainables.data.common.wording import Asking
from trainables.engine.training_settings import DEFAULT_TRAINING, TrainingSettings
from trainables.errors import BadInput, unknown
from trainables.models.common.quantisation import BaseBits
from trainables.options import LARGEST
from trainables.recipe import Recipe, Tuning
from trainables.registry import METHODS, Registry, of_user

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

TRIALS_PER_RANGE = 5
"""Trials of an arm for each of its ranges: an arm with more settings needs more trials to be tuned
as closely."""
TRIALS_PER_ARM = 6
"""Trials for each arm at least: as many as it takes to say what an arm may still gain
(``study.search.arm_gains.LEAST``)."""
SPACES = Registry("space", "search_spaces", "SPACE")
BATCH_SIZE = "batch_size"
"""Name of the training setting that is the trial's number of examples in a batch."""
MOST_IN_BATCH = 1_000_000
"""Examples in a batch at most: more is a slip of the finger."""
TRAINING = (BATCH_SIZE, *(field.name for field in fields(TrainingSettings)))
"""Names of all training settings that an arm or a space may have."""
ASKING = ("prompt", "system")
"""Names of the training settings that say how questions are asked."""
Draw = Callable[[str, Range], Any]
"""Function that gives a value of a range, from the parameter's name and the range."""


def load(name: str) -> Space:
    """The space of a file in ``search_spaces``, or of the user's own file if ``name`` ends in .py.

    Raises:
        BadInput: there is no such space or file, or a method, setting or value in it does not
            exist.
    """
    space = _from_file(Path(name) if name.endswith(".py") else SPACES.file(name))
    for arm_name, arm in space.arms.items():
        try:
            check(arm)
        except ValueError as error:
            raise BadInput(f"space {name!r}, arm {arm_name!r}: {error}") from None
    return space


def questions() -> dict[str, str]:
    """Name of every shipped space -> its question."""
    return {name: _from_file(SPACES.file(name)).question for name in SPACES.names()}


def check(arm: Arm) -> None:
    """Try every value at the edge of every range against the methods' ``Config`` and
    ``TrainingSettings``.

    Raises:
        BadInput: a method or setting does not exist, or a value is not allowed.
    """
    for ranges in arm.slots.values():
        for name, value in ranges.settings.items():
            if any(abs(number) > LARGEST for number in _numbers(value)):
                raise BadInput(f"{ranges.name} {name} must be at most {LARGEST:,}, but is larger")
        first = {name: _edges(value)[0] for name, value in ranges.settings.items()}
        Tuning.parse(ranges.name, first)
        for name, value in ranges.settings.items():
            for edge in _edges(value):
                Tuning.parse(ranges.name, {**first, name: edge})
    batch_sizes(arm, 1)
    for name, value in arm.training.items():
        if name not in TRAINING:
            raise unknown("training setting", name, TRAINING)
        for edge in _edges(value) if name != BATCH_SIZE else ():
            TrainingSettings.from_plain({name: edge})


def draw(arm: Arm, slots: Collection[str], value_of: Draw) -> tuple[dict[str, Any], float]:
    """One point of an arm: its recipe, as ``trainables.recipe.Recipe.from_plain`` takes it, and its
    learning rate.

    Raises:
        BadInput: the arm names a slot that is not in ``slots``.
    """
    chosen = {
        slot: {"method": ranges.name}
        | {
            name: _drawn(value, parameter, value_of)
            for name, value, parameter in _named(slot, ranges.name, ranges.settings)
        }
        for slot, ranges in arm.slots.items()
    }
    recipe = chosen
    if "everywhere" in chosen:
        recipe = dict.fromkeys(slots, chosen["everywhere"] | {"everywhere": True})
    for slot in chosen:
        if slot != "everywhere" and slot not in slots:
            raise BadInput(f"the model has no slot {slot!r}; it has: {', '.join(slots)}")
    lr = value_of("lr", arm.lr) if isinstance(arm.lr, Range) else arm.lr
    return recipe, float(lr)


def draw_training(arm: Arm, value_of: Draw) -> dict[str, Any]:
    """One point of an arm's training settings: a value for each that the arm names."""
    return {
        name: value_of(name, value) if isinstance(value, Range) else value
        for name, value in arm.training.items()
    }


def batch_sizes(arm: Arm, otherwise: int) -> tuple[int, ...]:
    """Batch sizes that trials of an arm may have, ascending: its own or, if it names none, the
    space's.

    Raises:
        BadInput: one is not a positive whole number.
    """
    asked = arm.training.get(BATCH_SIZE, otherwise)
    sizes = asked.values if isinstance(asked, Choice) else (asked,)
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise BadInput(
                f"{BATCH_SIZE} must be a positive whole number, or a Choice of such, but got "
                f"{asked if size is asked else size!r}"
            )
        if size > MOST_IN_BATCH:
            raise BadInput(f"{BATCH_SIZE} must be at most {MOST_IN_BATCH:,} but got {size:,}")
    return tuple(sorted(sizes))


def may_be_none(setting: str) -> bool:
    """Whether a training setting may be None."""
    try:
        TrainingSettings.from_plain({setting: None})
    except BadInput:
        return False
    return True


def optimizers(arm: Arm) -> tuple[str, ...]:
    """Optimizers that trials of an arm may have."""
    return _edges(arm.training.get("optimizer", DEFAULT_TRAINING.optimizer))


def own_asking(training: Mapping[str, Any]) -> dict[str, Any]:
    """Prompt and system message among training settings, where they are there."""
    return {name: training[name] for name in ASKING if name in training}


def askings(space: Space, of_study: Asking) -> list[Asking]:
    """All prompts with all system messages that trials of a space may have; ``of_study`` are those
    of arms that name none."""
    found = []
    for arm in space.arms.values():
        asked = own_asking(arm.training)
        for values in itertools.product(*map(_edges, asked.values())):
            settings = TrainingSettings.from_plain(dict(zip(asked, values, strict=True)))
            found.append(settings.asking(of_study))
    return list(dict.fromkeys(found))


def typical_training(arm: Arm) -> TrainingSettings:
    """An arm's training settings at the middle of its ranges."""
    drawn = draw_training(arm, middle)
    return TrainingSettings.from_plain({n: value for n, value in drawn.items() if n != BATCH_SIZE})


def ranges(arm: Arm) -> dict[str, Range]:
    """Logged name of every searched parameter of an arm -> its range."""
    return {name: value for name, value in settings(arm).items() if isinstance(value, Range)}


def settings(arm: Arm) -> dict[str, Any]:
    """Logged name of every setting that an arm names -> its value or range."""
    of_slots = {
        parameter: values
        for slot, method in arm.slots.items()
        for _, value, named in _named(slot, method.name, method.settings)
        for parameter, values in _parts(named, value).items()
    }
    return {**of_slots, "lr": arm.lr, **arm.training}


def suggest(trial: optuna.Trial, arm_name: str) -> Draw:
    """Function that draws an arm's values from Optuna. Each arm has parameters of its own, so
    ranges may differ between arms."""

    def value_of(parameter: str, values: Range) -> Any:
        name = f"{arm_name}/{parameter}"
        if isinstance(values, Choice):
            return from_optuna(values, trial.suggest_categorical(name, optuna_choices(values)))
        log = isinstance(values, LogUniform)
        return trial.suggest_float(name, values.low, values.high, log=log)

    return value_of


def optuna_choices(values: Choice) -> tuple[Any, ...]:
    """The values of a choice as Optuna takes them; see ``to_optuna``."""
    return tuple(map(to_optuna, values.values))


def to_optuna(value: Any) -> Any:
    """A value as Optuna takes it: a tuple, or the list that it is in JSON, as JSON text, since
    Optuna's categorical values are texts, numbers, bools and None."""
    return json.dumps(value) if isinstance(value, tuple | list) else value


def from_optuna(values: Range, drawn: Any) -> Any:
    """The value of a range for which Optuna has ``drawn``."""
    if not isinstance(values, Choice):
        return drawn
    return {to_optuna(v): v for v in values.values if isinstance(v, tuple)}.get(drawn, drawn)


def weight_trainers(space: Space) -> dict[str, str]:
    """Slot, or ``everywhere``, whose weight matrices an arm trains -> the first arm that does, with
    its method."""
    found: dict[str, str] = {}
    for name, arm in space.arms.items():
        for slot, ranges in arm.slots.items():
            if getattr(METHODS.find(ranges.name), "TRAINS_WEIGHTS", False):
                found.setdefault(slot, f"arm {name!r} trains its weights ({ranges.name})")
    return found


def base_bits(bits: int | None, space: Space) -> BaseBits | None:
    """How ``--base-bits`` quantises the base that all arms of a space share; None: it is not.

    Raises:
        BadInput: it can't be held in so many bits, or an arm trains the weights of all slots.
    """
    if bits is None:
        return None
    trainers = weight_trainers(space)
    whole = tuple(sorted({*trainers} - {"everywhere"}))
    found = BaseBits(bits=bits, whole=whole)
    found.check()
    if "everywhere" in trainers:
        others = [
            name
            for name, arm in space.arms.items()
            if "everywhere" not in weight_trainers(replace(space, arms={name: arm}))
        ]
        raise BadInput(
            f"--base-bits {bits} leaves no weights to train, and {trainers['everywhere']}; "
            + (f"leave such arms out: --arm {','.join(others)}" if others else "leave it away")
        )
    return found


def points(arm: Arm) -> float:
    """Number of different points of an arm; infinite if one of its ranges is continuous."""
    sizes = [
        # Values are told apart as ``TrialSpec.id`` does.
        len({json.dumps(value) for value in values.values})
        if isinstance(values, Choice)
        else math.inf
        for values in ranges(arm).values()
    ]
    return math.prod(sizes)


def distribution(values: Range) -> BaseDistribution:
    """The Optuna distribution of a range, from which ``suggest`` draws."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values, Choice):
        return CategoricalDistribution(optuna_choices(values))
    return FloatDistribution(values.low, values.high, log=isinstance(values, LogUniform))


def middle(parameter: str, values: Range) -> Any:
    """A typical value of a range, to show what an arm trains before any trial is drawn."""
    if isinstance(values, Choice):
        return values.values[len(values.values) // 2]
    if isinstance(values, LogUniform):
        return math.sqrt(values.low * values.high)
    return (values.low + values.high) / 2


def typical(
    arm: Arm, slots: Collection[str], chosen: Mapping[str, Any] = MappingProxyType({})
) -> Recipe:
    """An arm's recipe at the middle of its ranges, but where a parameter's value is ``chosen``."""

    def value_of(parameter: str, values: Range) -> Any:
        return chosen[parameter] if parameter in chosen else middle(parameter, values)

    plain, _ = draw(arm, slots, value_of)
    return Recipe.from_plain(plain)


def placing(arm: Arm) -> dict[str, Choice]:
    """Name of every setting of a method that has no middle, as a choice of texts or tuples has
    none: they say where the method acts, like ``targets`` and ``layers``."""
    return {
        name: values
        for name, values in ranges(arm).items()
        if name not in TRAINING
        and isinstance(values, Choice)
        and any(isinstance(v, str | tuple) for v in values.values)
    }


def _named(slot: str, method: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Setting, its value or range, and the parameter's name, for each setting of a method. The name
    is like ``lora.rank`` or ``decoder.lora.rank``."""
    prefix = method if slot == "everywhere" else f"{slot}.{method}"
    for name, value in settings.items():
        yield name, value, f"{prefix}.{name}"


def _parts(parameter: str, value: Any) -> dict[str, Any]:
    """Parameter's name -> value or range, for each part of a setting."""
    if isinstance(value, ByBand):
        return {f"{parameter}.{band}": part for band, part in value.parts().items()}
    return {parameter: value}


def _drawn(value: Any, parameter: str, value_of: Draw) -> Any:
    """The value of a setting, of which ranges are drawn."""
    parts = [
        value_of(name, part) if isinstance(part, Range) else part
        for name, part in _parts(parameter, value).items()
    ]
    return tuple(parts) if isinstance(value, ByBand) else parts[0]


def _edges(value: Any) -> tuple[Any, ...]:
    """Values of a setting to try: all of a choice, both ends of a range, those of a band beside the
    first of others."""
    if isinstance(value, ByBand):
        of_bands = {band: _edges(part) for band, part in value.parts().items()}
        firsts = {band: edges[0] for band, edges in of_bands.items()}
        return tuple(
            tuple((firsts | {band: edge}).values())
            for band, edges in of_bands.items()
            for edge in edges
        )
    if isinstance(value, Choice):
        return value.values
    if isinstance(value, Uniform | LogUniform):
        return value.low, value.high
    return (value,)


def _numbers(value: Any) -> Iterator[float]:
    """The numbers among the values of a setting to try."""
    for edge in _edges(value):
        for part in edge if isinstance(edge, tuple) else (edge,):
            if isinstance(part, int | float) and not isinstance(part, bool):
                yield part


def _from_file(path: Path) -> Space:
    module = of_user(path, "--space takes one, or a name: see --list")
    space = getattr(module, "SPACE", None)
    if not isinstance(space, Space):
        raise BadInput(f"{path} must define SPACE = Space(...); see search_spaces/smoke.py")
    return space


def default_trials(space: Space) -> int:
    """Number of trials of a space whose budget names none: ``TRIALS_PER_RANGE`` for each range of
    each arm, and ``TRIALS_PER_ARM`` for each arm at least."""
    of_ranges = sum(max(len(ranges(arm)), 1) for arm in space.arms.values())
    return max(TRIALS_PER_RANGE * of_ranges, TRIALS_PER_ARM * len(space.arms))
