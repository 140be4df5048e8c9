"""A trial on a device, with its state from step to step."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from study.planning.placement import Placement
from study.trials.spec import TrialSpec
from study.worker.orders import TrialReport

if TYPE_CHECKING:
    from trainables.training.trial import Trial


@dataclass(kw_only=True, eq=False)
class ResidentTrial:
    """A trial that is on a host."""

    spec: TrialSpec
    placement: Placement
    suspect: bool
    """Whether the trial trains alone up to its next report; see ``AdvanceTrial.suspect``."""
    reported_examples: int = 0
    """Examples seen at the last report that reached the study."""
    trial: Trial | None = None
    """The trial on the base model; None before it has a place."""
    reply: Future[TrialReport] | None = None
    """Future that takes the next report; None while no client asks."""
    report: dict[str, Any] = field(default_factory=dict)
    """Report of the last rung that the trial reached, as saved with its checkpoint."""
    seconds: float = 0.0
    """Device-seconds that the trial took. Those of a step that several trials share are divided
    among them."""
    peak_gib: float = 0.0
    """Peak memory of the device in GiB while the trial was there, with that of its neighbours."""
