"""Base of the callbacks that follow a study's trials."""

from __future__ import annotations

from study.trials.record import TrialRecord


class StudyCallback:
    """The base of all callbacks. Its methods do nothing; they are called in the order of events."""

    def started(self, record: TrialRecord) -> None:
        """React to a trial that was drawn, or that goes on after a restart."""

    def reported(self, record: TrialRecord) -> None:
        """React to a trial that has reported a rung, the last of ``record.rungs``."""

    def ended(self, record: TrialRecord) -> None:
        """React to a trial that has its outcome."""
