"""A trial on a device, with its state from step to step."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from study.worker.orders import AdvanceTrial, TrialReport

if TYPE_CHECKING:
    from trainables.training.trial import Trial


@dataclass(kw_only=True, eq=False)
class ResidentTrial:
    """A trial that is on a host."""

    order: AdvanceTrial
    """The order that brought the trial here, with the examples of its last report that reached the
    study. ``suspect`` is True up to the next report."""
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
