"""A trial as a guest of a host, and what all guests of a study share."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.placement import Placement
from study.records import TrialSpec
from study.storage import Shelf

if TYPE_CHECKING:
    from trainables.regime import Regime
    from trainables.trial import Trial
    from trainables.workload import WorkloadConfig


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """What every trial of a study shares."""

    workload: WorkloadConfig
    others: Mapping[str, WorkloadConfig]
    """Data that confirmed trials are scored on too."""
    shelf: Shelf
    """The study's files."""
    precision: str
    """``fp32`` or ``bf16``."""
    regime: Regime
    places: int
    """Trials at a time."""
    threads: int = 1
    """That compute at most: the processors of a device are its own, and no others."""
    template: Path | None = None
    """See ``study.template``; None: each host loads for itself."""


@dataclass(kw_only=True, eq=False)
class Guest:
    """A trial on the host."""

    spec: TrialSpec
    placement: Placement
    suspect: bool
    """Its host died, so it trains alone up to its next report: if that kills the host again, it
    was this trial and none of those beside it."""
    heard: int = 0
    """Examples seen at the last report that the study knows of: a kill may lie between."""
    trial: Trial | None = None
    reply: Future[dict[str, Any]] | None = None
    """Whom its next report goes to; None while nobody asks."""
    report: dict[str, Any] = field(default_factory=dict)
    """The last one."""
    seconds: float = 0.0
    """Device-seconds it took; those of a step that several trials share are divided among them."""
    peak_gib: float = 0.0
    """Of the device while it was there: what its neighbours took is in it."""
