"""What is known of a trial: what it is (``TrialSpec``) and what became of it (``TrialRecord``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.regime import Regime
    from trainables.trial import TrialConfig


class Kind(StrEnum):
    """Why a trial runs."""

    SEARCH = "search"
    """Sees train and validation data only."""
    CONFIRM = "confirm"
    """The best configuration of an arm with a new seed; scored on the test split."""
    UNTUNED = "untuned"
    """The base model as it is, scored on the test split."""


class Outcome(StrEnum):
    """How a trial ended: exactly one of these."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial, as plain values: it travels to workers, into the ledger and into MLflow."""

    kind: Kind
    arm: str
    parameters: Mapping[str, Any]
    """What was searched, flat: ``lora.rank``, ``lr``."""
    recipe: Mapping[str, Mapping[str, Any]]
    """Slot -> method and settings, as ``trainables.recipe.Recipe.plain`` gives them."""
    lr: float
    seed: int
    max_examples: int
    batch_size: int
    stops: tuple[int, ...]
    """Examples seen at which it reports: the rungs and the end."""
    base: str
    """Digest of model, data, precision and engine: what else its numbers depend on."""

    @cached_property
    def id(self) -> str:
        """Derived from the content: the same trial has the same id, whenever it is drawn."""
        content = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def plain(self) -> dict[str, Any]:
        """JSON-ready. Inverse of ``of``."""
        return asdict(self) | {"kind": self.kind.value, "stops": list(self.stops)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> TrialSpec:
        """Inverse of ``plain``."""
        return cls(**{**plain, "kind": Kind(plain["kind"]), "stops": tuple(plain["stops"])})

    def config(self, regime: Regime) -> TrialConfig:
        """As ``trainables`` takes it."""
        from trainables.recipe import Recipe
        from trainables.trial import TrialConfig

        return TrialConfig(
            recipe=Recipe.of(self.recipe),
            lr=self.lr,
            seed=self.seed,
            max_examples=self.max_examples,
            batch_size=self.batch_size,
            regime=regime,
        )


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What a trial reported at one point of its clock."""

    examples_seen: int
    validation_loss: float
    train_loss: float
    """Mean since the rung before."""
    seconds: float
    """Device-seconds that the trial took so far, validation included."""
    reported_at: float
    """Seconds since 1970."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """So far, as ``TrialRecord.costs``, as far as they are known."""


@dataclass(kw_only=True)
class TrialRecord:
    """A trial and what became of it so far. Changed only by the ledger."""

    spec: TrialSpec
    number: int
    """Of its Optuna trial."""
    started_at: float
    """Seconds since 1970."""
    rungs: list[Rung] = field(default_factory=list)
    ran: dict[str, str] = field(default_factory=dict)
    """How it is computed, which decides none of its numbers: ``lane``, ``devices``, ``engine``,
    ``micro_batch``, ..."""
    outcome: Outcome | None = None
    """None while it runs or waits to be run again."""
    ended_at: float | None = None
    costs: dict[str, float] = field(default_factory=dict)
    """``trained_parameters``, ``trained_percent``, ``seconds``, ``peak_memory_gib``."""
    scores: dict[str, float] = field(default_factory=dict)
    """``validation.overall``, ``test.open``, ...: percent; see ``trainables.data.scores.score``."""
    error: str = ""
    """One line, for outcomes that are not ``complete`` or ``pruned``."""
    remark: str = ""
    """One line, if it did not run as it should, though that changes no number."""

    @property
    def loss(self) -> float:
        """The last validation loss; infinite before the first."""
        return self.rungs[-1].validation_loss if self.rungs else float("inf")

    @property
    def examples_seen(self) -> int:
        """The clock at the last report."""
        return self.rungs[-1].examples_seen if self.rungs else 0
