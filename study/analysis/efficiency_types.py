"""What scores cost, as values, which ``study.analysis.result_types`` is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Gt

from study.statistics.score_types import Number, WithColumns

COSTS = {
    "trained_parameters": "trained parameters",
    "adapter_mib": "adapter, MiB",
    "peak_memory_gib": "peak memory, GiB",
    "seconds": "device-seconds of a training",
}
"""Cost of an arm -> its name in words."""


@dataclass(frozen=True, kw_only=True)
class BudgetPoint:
    """Validation accuracy in percent that a search of one arm is expected to end with."""

    seconds: Annotated[float, Gt(0)]
    """Device-seconds that the search may take."""
    mean: float
    low: float
    """Lower end of the middle 80% of searches."""
    high: float
    """Upper end of the middle 80% of searches."""


@dataclass(frozen=True, kw_only=True)
class BudgetLeader:
    """The arm that is expected to be ahead at one budget."""

    seconds: float
    """Device-seconds that the search of each arm may take."""
    arm: str | None
    """Name of the arm; None if most searches of every arm have nothing but the untuned model."""
    chance: float | None = None
    """Share of searches in which the arm is ahead, as earlier versions gave it; None since it is
    not calibrated."""
    expected: float
    """Mean validation accuracy of the searches of the arm, in percent."""


@dataclass(frozen=True, kw_only=True)
class BudgetCurves:
    """Validation accuracy against search budget; see ``study.analysis.efficiency``."""

    untuned: float
    """Validation accuracy of the untuned model in percent, with which every search begins."""
    arms: Mapping[str, tuple[BudgetPoint, ...]]
    """Name of an arm -> its curve, by rising budgets."""
    leaders: tuple[BudgetLeader, ...]
    """The arm that is ahead, at some budgets."""


@dataclass(frozen=True, kw_only=True)
class LearningRateRange:
    """Range of good learning rates of one arm; see ``study.analysis.efficiency``."""

    examples_seen: int
    """Training examples at the rung whose losses are compared."""
    best: float
    """Learning rate of the lowest loss."""
    low: float
    high: float
    decades: float
    """Width of the range on a logarithmic scale of base 10."""
    open_low: bool
    """Whether the range may well go on below ``low``."""
    open_high: bool
    """Whether the range may well go on above ``high``."""
    trials: int
    """Number of trials that the range rests on."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Importance of settings; see ``study.analysis.importance``."""

    of: str
    """Name of an arm, or ``all arms``."""
    shares: Mapping[str, float]
    """Setting -> share of the importance, together 1; the most important first."""
    trials: int
    """Number of trials that the shares rest on."""
    warning: str
    """Warning in words if the trials are few for so many settings; empty otherwise."""


@dataclass(frozen=True, kw_only=True)
class FrontTrial(WithColumns):
    """Trial of a search for several objectives that no other trial beats."""

    columns: ClassVar[str] = "costs"
    trial: str
    """Id of the trial."""
    arm: str
    """Name of the arm."""
    parameters: Mapping[str, Any]
    """Name of a searched parameter -> its value."""
    validation_loss: float
    validation_percent: float | None
    """Validation accuracy in percent."""
    costs: Mapping[str, Number]
    """Cost that was minimised -> its value, in the unit that its name ends with."""


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Costs of scores: of tuned models, and of the search for them."""

    pareto: Mapping[str, tuple[str, ...]]
    """Cost -> names of the arms that no other arm beats for the same or less."""
    budget: BudgetCurves | None
    """Score that a search is expected to end with; None if no arm has a complete trial."""
    front: tuple[FrontTrial, ...] = ()
    """Trials that no other trial beats, by ascending loss; empty for a search for one objective."""
    learning_rates: Mapping[str, LearningRateRange | None]
    """Name of an arm -> its range of good learning rates; None if it has too few trials."""
    importance: tuple[Importance, ...] = ()
    """Importance of settings among all arms, and within each arm that has several settings."""
