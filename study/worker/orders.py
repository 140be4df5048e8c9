"""The orders that hosts and gangs carry out, and the report with which they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from study.planning.placement import Placement
from study.trials.record import Outcome, Rung
from study.trials.spec import TrialSpec


@dataclass(frozen=True, kw_only=True)
class AdvanceTrial:
    """Order to train a trial to its next report. It goes from the trial's client to its host or
    gang, and no part of it is passed on alone."""

    spec: TrialSpec
    placement: Placement
    reported_examples: int = 0
    """Examples seen at the last report that reached the study. The trial's checkpoint may be ahead
    of it, if the host was killed before it reported."""
    suspect: bool = False
    """Whether the trial's host has died. It then trains alone up to its next report: if the host
    dies again, this trial was the cause and none of those beside it."""

    def after(self, report: TrialReport) -> AdvanceTrial:
        """Order to train the trial to the report that follows ``report``."""
        seen = self.reported_examples if report.rung is None else report.rung.examples_seen
        return replace(self, reported_examples=seen, suspect=False)


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """Answer to ``AdvanceTrial``: a rung that the trial has reached, its end, or both; or a
    storage fault, which ends no trial."""

    rung: Rung | None = None
    """The rung that the trial has reached; None if it ended or met a fault before the next one."""
    outcome: Outcome | None = None
    """Outcome of a trial that has ended; None if it goes on."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores of a complete trial, as in ``TrialRecord.scores``."""
    error: str = ""
    """Error in one line, for outcomes other than ``complete``."""
    fault: str = ""
    """Storage fault that the trial met, in one line (``study.storage.faults``). The trial stays
    open, for ``--resume``."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Costs so far, as in ``TrialRecord.costs``."""
    ran: Mapping[str, str] = field(default_factory=dict)
    """Additions to ``TrialRecord.ran``."""
    remark: str = ""
    """Remark in one line, as in ``TrialRecord.remark``."""

    @property
    def done(self) -> bool:
        """Whether the trial has ended."""
        return self.outcome is not None


@dataclass(frozen=True, kw_only=True)
class ForgetTrial:
    """Order to drop a trial that was stopped or given up."""

    trial_id: str


@dataclass(frozen=True, kw_only=True)
class EndGang:
    """Order to end the workers of a gang that is not needed any more."""


Order = AdvanceTrial | ForgetTrial | EndGang
