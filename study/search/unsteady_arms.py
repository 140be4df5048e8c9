"""Which arms are confirmed with more seeds: those whose training proved unsteady in the search.

An arm whose training fails with one seed in ten mostly shows no failure in three confirmations, and
its score is then too high. The search has seen more trainings of it. So an arm is confirmed with
twice the seeds (``study.config.budget.TIMES_IF_DIVERGED``) if a search trial of it diverged at a
learning rate no larger than that of its best trial. A trial that diverged at a larger one says that
the range reaches too far, and nothing of the best settings. The rule looks at no score, least of
all at one of the test split.

Trials that collapsed, whose loss stayed finite, are not counted: most of them are stopped early,
and of a trial that was stopped there are no answers by which a collapse is seen.
"""

from __future__ import annotations

from collections.abc import Iterable

from study.trials.record import Outcome, TrialRecord
from study.trials.searches import arm_of
from study.trials.spec import Kind


class UnsteadyArms:
    """The arms of a study of which search trials diverged, by the lowest learning rate at which one
    did."""

    def __init__(self, searches: int, records: Iterable[TrialRecord]) -> None:
        """Compare trials. ``searches`` is the number of independent searches of each arm, which
        count together."""
        self.searches = searches
        self.lowest: dict[str, float] = {}
        """Arm -> lowest learning rate at which a search trial of it diverged."""
        for record in records:
            self.compare(record)

    def compare(self, record: TrialRecord) -> None:
        """Take a trial that has ended into account."""
        if record.spec.kind is Kind.SEARCH and record.outcome is Outcome.DIVERGED:
            arm, lr = arm_of(record.spec.arm, self.searches), record.spec.lr
            self.lowest[arm] = min(lr, self.lowest.get(arm, lr))

    def diverged_at(self, best: Iterable[TrialRecord]) -> dict[str, float]:
        """Unsteady arm -> lowest learning rate at which a search trial of it diverged. ``best`` are
        the best trials of all searches; one of the arm's has a learning rate as large at least."""
        found = {}
        for record in best:
            arm = arm_of(record.spec.arm, self.searches)
            if self.lowest.get(arm, float("inf")) <= record.spec.lr:
                found[arm] = self.lowest[arm]
        return found
