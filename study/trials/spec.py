"""A trial before it runs: one point of the space with one seed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Lt

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from trainables.training.regime import Regime
    from trainables.training.trial_config import TrialConfig


class Kind(StrEnum):
    """Purpose of a trial."""

    SEARCH = "search"
    """A trial of the search; it sees train and validation data only."""
    CONFIRM = "confirm"
    """The best configuration of an arm with a new seed; scored on the test split."""
    UNTUNED = "untuned"
    """The base model as it is, scored on the test split."""


def off_default(value: DataclassInstance, always: Collection[str] = ()) -> dict[str, Any]:
    """Name -> value of a dataclass's fields that have no default, or another value than it, or are
    in ``always``. What identifies a trial or a study is made of these, so that it stays as it is
    when a field with a default is added."""
    defaults = {field.name: _default(field) for field in fields(value)}
    return {
        name: held
        for name, held in asdict(value).items()
        if name in always or held != defaults[name]
    }


def _default(field: Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is MISSING else made()


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial, as plain values: it travels to workers, into the journal and into MLflow."""

    kind: Kind
    arm: str
    parameters: Mapping[str, Any]
    """Values of the searched parameters, flat: ``lora.rank``, ``lr``."""
    recipe: Mapping[str, Mapping[str, Any]]
    """Slot -> method and settings, as ``trainables.recipe.Recipe.plain`` gives them."""
    lr: Annotated[float, Ge(0), Lt(math.inf)]
    seed: int
    max_examples: int
    batch_size: int
    stops: tuple[int, ...]
    """Examples seen at which the trial reports: the rungs and the end."""
    base: str
    """Digest of model, data, precision and engine: what else the trial's numbers depend on."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training settings that are off their defaults, as ``TrainingSettings.plain`` gives them."""
    split: int = 0
    """Number of the division of the data by image; 0 is the data's own (``--splits``)."""

    @cached_property
    def id(self) -> str:
        """Id, derived from the content: the same trial has the same id, whenever it is drawn. A
        field that has a default joins the id only where it is off it, so that a new field changes
        no id."""
        content = json.dumps(off_default(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def trained_with(self) -> dict[str, Any]:
        """All training settings by name, defaults included. Label smoothing is missing where it is
        the study's."""
        from trainables.engine.training_settings import TrainingSettings

        settings = asdict(TrainingSettings.from_plain(self.training))
        return {name: value for name, value in settings.items() if value is not None}

    def plain(self) -> dict[str, Any]:
        """JSON-ready values, from which ``from_plain`` makes the trial again. ``split``, which is
        younger than the first journals, is there only off its default."""
        named = {field.name for field in fields(self)} - {"split"}
        return off_default(self, named) | {"kind": self.kind.value, "stops": list(self.stops)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TrialSpec:
        """The trial whose ``plain`` values these are."""
        return cls(**{**plain, "kind": Kind(plain["kind"]), "stops": tuple(plain["stops"])})

    def config(self, regime: Regime) -> TrialConfig:
        """The trial's configuration, as ``trainables`` takes it."""
        from trainables.engine.training_settings import TrainingSettings
        from trainables.recipe import Recipe
        from trainables.training.trial_config import TrialConfig

        return TrialConfig(
            recipe=Recipe.from_plain(self.recipe),
            lr=self.lr,
            seed=self.seed,
            max_examples=self.max_examples,
            batch_size=self.batch_size,
            training=TrainingSettings.from_plain(self.training),
            regime=regime,
            split=self.split,
        )
