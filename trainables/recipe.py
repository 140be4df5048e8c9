"""A recipe says how each slot of a model is tuned: ``vision=frozen, decoder=lora(rank=8)``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables import registry
from trainables.errors import BadInput, NoMatchingLayer, unknown
from trainables.methods.common import layers, roles
from trainables.methods.common.younger_setting import YOUNGER

if TYPE_CHECKING:
    from torch import nn

    from trainables.model_contract import Slot, Structure


OF_ANY_METHOD: Mapping[str, Any] = {"layers": layers.ALL, "lr_scale": 1.0}
"""Setting that every method has -> its default."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A method with checked settings."""

    method: str
    config: Any
    """Instance of the method's own ``Config``."""
    everywhere: bool = False
    """Whether the method was asked for in all slots instead of a named one. A slot in which it
    finds nothing to train is then left frozen."""
    layers: str = layers.ALL
    """Layers of the slot that the method is limited to: ``all``, or like ``first:4`` or ``last:8``.
    Outside of these it trains nothing."""
    lr_scale: float = 1.0
    """Learning rate of the slot, in units of the trial's."""

    @classmethod
    def parse(cls, method: str, settings: Mapping[str, Any], *, everywhere: bool = False) -> Tuning:
        """Find a method and check its settings.

        Raises:
            BadInput: there is no such method or setting, or the method refuses a value.
        """
        module = registry.METHODS.find(method)
        defaults = {**dataclasses.asdict(module.Config()), **OF_ANY_METHOD}
        for name in settings:
            if name not in defaults:
                raise unknown(f"setting of method {method!r}", name, defaults)
        given: dict[str, Any] = {
            name: _by_band(f"{method} {name}", value, defaults[name])
            if name in getattr(module.Config, "BY_BAND", ()) and isinstance(value, list | tuple)
            else _parsed(f"{method} {name}", value, defaults[name])
            for name, value in settings.items()
        }
        of_any = {name: given.pop(name, default) for name, default in OF_ANY_METHOD.items()}
        limit, lr_scale = of_any["layers"], float(of_any["lr_scale"])
        layers.check(limit)
        if lr_scale <= 0:
            raise BadInput(f"{method} lr_scale must be positive but got {lr_scale:g}")
        return cls(
            method=method,
            config=module.Config(**given),
            everywhere=everywhere,
            layers=limit,
            lr_scale=lr_scale,
        )

    def settings(self) -> dict[str, Any]:
        """All settings of the method's own by name, defaults included."""
        return dataclasses.asdict(self.config)

    def recorded(self) -> dict[str, Any]:
        """Settings of the method's own that are part of a trial's id: all but those that are
        declared with ``younger`` and at their defaults."""
        defaults = type(self.config)()
        young = {f.name for f in dataclasses.fields(self.config) if f.metadata.get(YOUNGER)}
        return {
            name: value
            for name, value in self.settings().items()
            if name not in young or value != getattr(defaults, name)
        }

    def of_any_method(self) -> dict[str, Any]:
        """Settings that every method has, where they are off their defaults."""
        own = {name: getattr(self, name) for name in OF_ANY_METHOD}
        return {name: value for name, value in own.items() if value != OF_ANY_METHOD[name]}

    def __str__(self) -> str:
        """Name of the method, with the settings that differ from its defaults."""
        defaults = type(self.config)()
        shown = [
            f"{k}={roles.shown(v) if isinstance(getattr(defaults, k), tuple) else v}"
            for k, v in self.settings().items()
            if v != getattr(defaults, k)
        ]
        shown += [f"{name}={value}" for name, value in self.of_any_method().items()]
        return f"{self.method}({', '.join(shown)})" if shown else self.method


def _parsed(what: str, value: Any, default: Any) -> Any:
    """The value of a setting whose default is ``default``. Roles may also be given as a list, or as
    a text like ``query,value`` or ``all``.

    Raises:
        BadInput: the value is not of the default's type, or names a role that does not exist.
    """
    if isinstance(default, tuple) and isinstance(value, str | list | tuple):
        try:
            return roles.parse(value)
        except BadInput as error:
            raise BadInput(f"{what}: {error}") from None
    _check_type(what, value, default)
    return value


def _by_band(what: str, values: Sequence[Any], default: Any) -> tuple[Any, ...]:
    """The values of a setting for each band; see ``layers.BANDS``.

    Raises:
        BadInput: there are not as many values as bands, or one is not of the default's type.
    """
    if len(values) != len(layers.BANDS):
        raise BadInput(
            f"{what} must be one value, or three for the {', '.join(layers.BANDS)} third of a "
            f"slot's layers, but got {tuple(values)}"
        )
    for value in values:
        _check_type(what, value, default)
    return tuple(values)


def _check_type(what: str, value: Any, default: Any) -> None:
    """Refuse a setting that is not of its default's type. An int is accepted for a float; a bool is
    accepted for no number."""
    kind = type(default)
    fits = isinstance(value, int | float if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise BadInput(f"{what} must be of type {kind.__name__}, as {default!r}, but got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{what} must be finite but got {value}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A tuning for each slot, in the order of the family's slots."""

    slots: Mapping[str, Tuning]

    @classmethod
    def from_plain(cls, slots: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """Make a recipe from values like ``{"decoder": {"method": "lora", "rank": 8}}``, as the
        inverse of ``plain``."""
        return cls(
            slots={
                slot: Tuning.parse(
                    tuning["method"],
                    {k: v for k, v in tuning.items() if k not in ("method", "everywhere")},
                    everywhere=tuning.get("everywhere", False),
                )
                for slot, tuning in slots.items()
            }
        )

    def plain(self) -> dict[str, dict[str, Any]]:
        """The recipe as JSON-ready values, defaults included: a trial's id depends on every
        setting that it used. Settings that are younger than their method, and ``layers`` and
        ``lr_scale``, are in it only off their defaults."""
        return {
            slot: {"method": tuning.method}
            | ({"everywhere": True} if tuning.everywhere else {})
            | tuning.of_any_method()
            | {k: list(v) if isinstance(v, tuple) else v for k, v in tuning.recorded().items()}
            for slot, tuning in self.slots.items()
        }

    def __str__(self) -> str:
        texts = {slot: str(tuning) for slot, tuning in self.slots.items()}
        if len(set(texts.values())) == 1:
            return next(iter(texts.values()))
        return ", ".join(f"{slot}={text}" for slot, text in texts.items())


@dataclass(frozen=True, kw_only=True)
class SlotCount:
    """Number of values that a recipe trains in one slot."""

    slot: str
    tuning: str
    """Method of the slot, or ``frozen`` with the layers that the slot lacks for the method."""
    trained_parameters: int
    total_parameters: int
    """Number of all values of the slot, adapters included."""
    trained_layers: int = 0
    """Number of the slot's layers (blocks of its stack) in which something is trained or that see
    trained tokens."""
    total_layers: int = 0
    """Number of the slot's layers."""
    without_experts: bool = False
    """Whether the layers hold weights of several experts at once, which the method leaves alone."""


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Number of values that a recipe trains in a model."""

    counts: tuple[SlotCount, ...]
    total_parameters: int

    @property
    def trained_parameters(self) -> int:
        """Number of trained values."""
        return sum(count.trained_parameters for count in self.counts)

    @property
    def trained_percent(self) -> float:
        """Trained values in percent of all values, adapters included (MILE's definition)."""
        return 100 * self.trained_parameters / self.total_parameters


@dataclass(frozen=True, kw_only=True)
class AppliedRecipe(ParameterCounts):
    """A recipe that was put into a network."""

    parameters: dict[str, nn.Parameter]
    """Trained parameters, in fp32, by name in the network."""
    lr_factors: dict[str, float]
    """Factor on the trial's learning rate, mostly 1, by the trained parameter's name in the
    network."""


def apply(recipe: Recipe, model: Structure, network: nn.Module, *, seed: int) -> AppliedRecipe:
    """Put ``recipe`` into ``network``, a weight-sharing copy of ``model.network``.

    ``seed`` decides the random initial values of adapters. The values in one slot do not depend on
    the methods of other slots.

    Raises:
        BadInput: the recipe names a slot that the family lacks; a method finds nothing to train in
            a slot that was named or, if asked for everywhere, in any slot, or returns something
            else than names of parameters; two slots share a trained parameter; or one to train has
            four bits a value.
    """
    from trainables.model_contract import slot as find_slot
    from trainables.seeding import seeded
    from trainables.shared_layers.quantised_linear import count_values
    from trainables.weight_sharing import own_trained_parameters

    for name in recipe.slots:
        if name not in model.slots:
            raise unknown("slot", name, model.slots)
    factors: dict[str, float] = {}
    tunings = dict.fromkeys(model.slots, "frozen") | {n: str(t) for n, t in recipe.slots.items()}
    lacking: list[NoMatchingLayer] = []
    for name, tuning in recipe.slots.items():
        try:
            with seeded("adapters", seed, name):
                factor_of = _applied(tuning, find_slot(model, network, name))
        except NoMatchingLayer as nothing:
            if not tuning.everywhere:
                raise
            tunings[name] = f"frozen (no {nothing.lacks})"
            lacking.append(nothing)
            continue
        factors |= {
            f"{model.slots[name]}.{parameter}": factor * tuning.lr_scale
            for parameter, factor in factor_of.items()
        }
    if lacking and not factors:
        raise lacking[0]
    parameters = own_trained_parameters(network, factors)
    counts = tuple(
        _count(
            network.get_submodule(path),
            name,
            tunings[name],
            {
                block: model.network.get_submodule(path).get_submodule(block)
                for block in find_slot(model, model.network, name).roles.get("block", ())
            },
        )
        for name, path in model.slots.items()
    )
    total = count_values(network)
    if len(parameters) != len(factors):
        raise BadInput(f"recipe {recipe} trains a parameter that two slots share")
    return AppliedRecipe(
        parameters=parameters,
        lr_factors={parameter: factors[parameter] for parameter in parameters},
        counts=counts,
        total_parameters=total,
    )


def _applied(tuning: Tuning, slot: Slot) -> Mapping[str, float]:
    """Apply a method to the layers of a slot that it is limited to.

    Returns:
        name of each trained parameter in the slot -> factor on the trial's learning rate.

    Raises:
        NoMatchingLayer: the method finds nothing to train in these layers.
        BadInput: there are fewer layers than it is limited to, or the method's ``apply`` returned
            something else than names of parameters of the slot.
    """
    base = {name for name, _ in slot.module.named_parameters(remove_duplicate=False)}
    limit = layers.limited(slot, tuning.layers)
    chosen = registry.METHODS.find(tuning.method).apply(limit, tuning.config)
    factor_of = _factors(tuning.method, slot, chosen)
    if tuning.layers == layers.ALL:
        return factor_of
    # A method that takes parameters as it finds them takes those of all layers.
    blocks = limit.roles["block"]
    kept = {n: f for n, f in factor_of.items() if n not in base or layers.is_in(n, blocks)}
    if factor_of and not kept:
        within = {type(m).__name__ for b in blocks for m in slot.module.get_submodule(b).modules()}
        raise NoMatchingLayer(
            f"slot {slot.name!r} has nothing that {tuning.method} trains in layers={tuning.layers};"
            f" there are: {', '.join(sorted(within))}",
            lacks=f"{tuning.method} in {tuning.layers}",
        )
    return kept


def _factors(method: str, slot: Slot, chosen: Any) -> Mapping[str, float]:
    """Factor on the learning rate of each parameter that a method's ``apply`` returned.

    Raises:
        BadInput: it returned something else than names of parameters of the slot, or the name of
            a weight in four bits.
    """
    there = dict(slot.module.named_parameters(remove_duplicate=False))
    named = isinstance(chosen, Iterable) and not isinstance(chosen, str)
    names: list[str] = list(chosen) if named else [chosen]
    for name in names:
        if name not in there:
            raise BadInput(
                f"apply of method {method!r} returned {name!r}, but it must return the names of "
                f"the parameters of slot {slot.name!r} that it trains, as select.adapters(slot) "
                "gives them"
            )
        if not there[name].is_floating_point():
            raise BadInput(
                f"{method} trains weight matrices, and slot {slot.name!r} has them in four bits; "
                "give it another method, or leave --base-bits away"
            )
    return chosen if isinstance(chosen, Mapping) else dict.fromkeys(names, 1.0)


def _count(module: nn.Module, slot: str, tuning: str, blocks: Mapping[str, nn.Module]) -> SlotCount:
    """Count a slot's values; ``blocks`` are the blocks of the base by their paths in the slot."""
    from trainables.shared_layers.quantised_linear import count_values

    reached = [
        block
        for block, base in blocks.items()
        if any(p.requires_grad for p in module.get_submodule(block).parameters())
        or _hooks(module.get_submodule(block)) > _hooks(base)
    ]
    return SlotCount(
        slot=slot,
        tuning=tuning,
        trained_parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
        total_parameters=count_values(module),
        trained_layers=len(reached),
        total_layers=len(blocks),
        without_experts=any(
            not weight.requires_grad
            for block in reached
            for weight in layers.stacked_weights(module.get_submodule(block))
        ),
    )


def _hooks(block: nn.Module) -> int:
    """Number of hooks in a block, by which methods give it tokens."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in block.modules())
