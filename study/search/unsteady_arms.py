"""Which arms are confirmed with more seeds: those whose training proved unsteady in the search.

An arm whose training fails with one seed in ten mostly shows no failure in three confirmations, and
its score is then too high. The search has seen more trainings of it. So an arm is confirmed with
twice the seeds (``study.config.budget.TIMES_IF_DIVERGED``, ``TIMES_IF_COLLAPSED``) if a search
trial of it diverged or collapsed at a learning rate no larger than that of its best trial. A trial
that did so at a larger one says that the range reaches too far, and nothing of the best settings.
The rule looks at no score, least of all at one of the test split.

Most trials that collapse are stopped early, and of a trial that was stopped there are no answers.
So a collapse is seen by validation losses: at a rung, the trial's loss is more than ``RISE`` times

* the lowest of its own at earlier rungs, or the highest that any trial of the same search with a
  smaller learning rate reported, if there are ``SLOWER`` such trials at least (what training began
  with is not known, and a slow trial stays near it);
* and that of the search's best trial at this rung, so that an arm all of whose losses rise, since
  it is trained for too long, is not taken for one that collapses.

A training that learns to give everybody the same answer, without its loss ever rising, is not seen.
``python -m tests.benchmarks.unsteady`` measures how often steady arms are called
unsteady, and how many collapses are seen.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from study.config.budget import RISE, reached
from study.trials.record import Outcome, TrialRecord
from study.trials.searches import arm_of
from study.trials.spec import Kind

SLOWER: Final = 2
"""Number of trials with smaller learning rates of which the highest loss says where training
begins."""


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """Validation losses of a search trial that ended without an error."""

    lr: float
    losses: Mapping[int, float]
    """Rung, in examples -> loss."""
    highest: float
    """Highest of the losses."""
    rises: bool
    """Whether a loss rose above the lowest before."""


class UnsteadyArms:
    """The arms of a study of which search trials diverged or collapsed."""

    def __init__(self, searches: int, rungs: Sequence[int], records: Iterable[TrialRecord]) -> None:
        """Compare trials. ``searches`` is the number of independent searches of each arm, which
        count together, and ``rungs`` are the numbers of examples at which trials report."""
        self.searches, self.rungs = searches, rungs
        self.lowest: dict[str, float] = {}
        """Arm -> lowest learning rate at which a search trial of it diverged."""
        self._curves: dict[str, list[_Curve]] = defaultdict(list)
        """Name under which an arm is searched -> its trials, by learning rate."""
        self._known: dict[str, tuple[tuple[int, str, int], float]] = {}
        """Name under which an arm is searched -> by what the lowest learning rate was found at
        which a trial of it collapsed, and that rate; infinite if none did."""
        for record in records:
            self.compare(record)

    def compare(self, record: TrialRecord) -> None:
        """Take a trial that has ended into account."""
        if record.spec.kind is not Kind.SEARCH:
            return
        if record.outcome is Outcome.DIVERGED:
            arm, lr = arm_of(record.spec.arm, self.searches), record.spec.lr
            self.lowest[arm] = min(lr, self.lowest.get(arm, lr))
        elif record.outcome in (Outcome.COMPLETE, Outcome.PRUNED) and record.rungs:
            losses = self._losses(record)
            curve = _Curve(
                lr=record.spec.lr,
                losses=losses,
                highest=max(losses.values()),
                rises=rose(losses, float("inf"), {}),
            )
            insort(self._curves[record.spec.arm], curve, key=lambda each: each.lr)

    def times(
        self, best: Iterable[TrialRecord], *, if_diverged: int, if_collapsed: int
    ) -> dict[str, int]:
        """Unsteady arm -> multiple of the seeds with which it is confirmed, the larger one if
        trials of it diverged and collapsed. ``best`` is as in ``diverged_at``."""
        best = list(best)
        found = dict.fromkeys(self.collapsed_at(best) if if_collapsed > 1 else (), if_collapsed)
        for arm in self.diverged_at(best):
            found[arm] = max(found.get(arm, 1), if_diverged)
        return found

    def diverged_at(self, best: Iterable[TrialRecord]) -> dict[str, float]:
        """Unsteady arm -> lowest learning rate at which a search trial of it diverged. ``best`` are
        the best trials of all searches; one of the arm's has a learning rate as large at least."""
        return self._below_best(self.lowest, best)

    def collapsed_at(self, best: Iterable[TrialRecord]) -> dict[str, float]:
        """Unsteady arm -> lowest learning rate at which a search trial of it collapsed. ``best`` is
        as in ``diverged_at``."""
        best, lowest = list(best), dict[str, float]()
        for record in best:
            arm, lr = arm_of(record.spec.arm, self.searches), self._collapsed(record)
            lowest[arm] = min(lr, lowest.get(arm, lr))
        return self._below_best(lowest, best)

    def _below_best(
        self, lowest: Mapping[str, float], best: Iterable[TrialRecord]
    ) -> dict[str, float]:
        """Learning rates of ``lowest`` that are no larger than that of one of the arm's best
        trials."""
        arms = [(arm_of(record.spec.arm, self.searches), record.spec.lr) for record in best]
        return {arm: lowest[arm] for arm, lr in arms if lowest.get(arm, float("inf")) <= lr}

    def _collapsed(self, best: TrialRecord) -> float:
        """Lowest learning rate at which a trial of the search collapsed whose best trial this is;
        infinite if none did."""
        name, curves = best.spec.arm, self._curves[best.spec.arm]
        by = len(curves), best.spec.id, len(best.rungs)
        if name not in self._known or self._known[name][0] != by:
            self._known[name] = by, _lowest_collapsed(curves, self._losses(best))
        return self._known[name][1]

    def _losses(self, record: TrialRecord) -> dict[int, float]:
        """Rung -> loss of a trial."""
        return {reached(self.rungs, r.examples_seen): r.validation_loss for r in record.rungs}


def _lowest_collapsed(curves: Sequence[_Curve], of_best: Mapping[int, float]) -> float:
    """Lowest learning rate at which one of the trials of a search collapsed; infinite if none did.
    ``curves`` are sorted by learning rate, and ``of_best`` are the losses of its best trial."""
    lr, slower, highest, alike = 0.0, 0, 0.0, 0.0
    began = float("inf")
    for place, curve in enumerate(curves):
        if curve.lr > lr:  # trials of one learning rate are not slower than each other
            lr, slower, highest = curve.lr, place, max(highest, alike)
            began = highest if slower >= SLOWER else float("inf")
        alike = max(alike, curve.highest)
        # Few trials need to be looked at rung by rung: a study has thousands.
        may = curve.rises or curve.highest > RISE * began
        if may and rose(curve.losses, began, of_best):
            return lr
    return float("inf")


def rose(losses: Mapping[int, float], began: float, of_best: Mapping[int, float]) -> bool:
    """Whether a loss rose above the lowest before, ``began`` included, and above the best trial's.

    Args:
        losses: rung, in examples -> the trial's loss.
        began: highest loss of slower trials; infinite if that is not known.
        of_best: losses of the best trial.
    """
    lowest = began
    for rung, loss in sorted(losses.items()):
        if loss > RISE * max(lowest, of_best.get(rung, 0.0)):
            return True
        lowest = min(lowest, loss)
    return False
