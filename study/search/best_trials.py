"""The best search trial of each arm, which the confirmation takes up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.config import goals
from study.config.budget import reached
from study.config.goals import Limit
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind


class BestTrials:
    """The trial of each arm with the lowest validation loss among those that got furthest.

    A trial that diverged or failed comes after all that did not. An arm is left out if none of its
    trials has reported a rung, or if none keeps the limits.
    """

    def __init__(
        self, records: Mapping[str, TrialRecord], limits: Sequence[Limit], rungs: Sequence[int]
    ) -> None:
        """Compare trials. ``records`` has them by id and may change; ``rungs`` are the numbers of
        examples at which they report."""
        self.records, self.limits, self.rungs = records, limits, rungs
        self.of_arm: dict[str, TrialRecord] = {}
        """Arm -> its best trial."""
        for record in records.values():
            self.compare(record)

    def compare(self, record: TrialRecord) -> None:
        """Compare a trial that has reported or ended. A trial gets better by getting further, and
        worse if it fails: then any other trial of the arm may be the best."""
        arm, rivals = record.spec.arm, [record]
        if self.of_arm.get(arm) is record and _failed(record):
            del self.of_arm[arm]
            rivals = [r for r in self.records.values() if r.spec.arm == arm]
        for rival in filter(self._may_be_best, rivals):
            if self._merit(rival) < self._merit(self.of_arm.setdefault(arm, rival)):
                self.of_arm[arm] = rival

    def _merit(self, record: TrialRecord) -> tuple[bool, int, float, int]:
        """Sort key, lower is better: not failed, got furthest, validation loss, drawn first."""
        level = reached(self.rungs, record.examples_seen)
        return _failed(record), -level, record.loss, record.number

    def _may_be_best(self, record: TrialRecord) -> bool:
        searched = record.spec.kind is Kind.SEARCH and bool(record.rungs)
        return searched and goals.within_limits(self.limits, record)


def _failed(record: TrialRecord) -> bool:
    return record.outcome not in (None, Outcome.COMPLETE, Outcome.PRUNED)
