"""The orders that hosts and gangs carry out."""

from __future__ import annotations

from dataclasses import dataclass

from study.planning.placement import Placement
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


@dataclass(frozen=True, kw_only=True)
class ForgetTrial:
    """Order to drop a trial that was stopped or given up."""

    trial_id: str


@dataclass(frozen=True, kw_only=True)
class EndGang:
    """Order to end the workers of a gang that is not needed any more."""


Order = AdvanceTrial | ForgetTrial | EndGang
