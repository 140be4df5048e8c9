"""Early stopping: ASHA (Li et al. 2020, arXiv 1810.05934) with rungs kept for each arm apart.

A trial is compared only with trials of its own arm at the same number of examples seen, so a method
that starts slowly is never stopped by another's fast start.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence

from search_spaces.declare import Budget
from study import objectives


def levels(budget: Budget) -> tuple[int, ...]:
    """Examples seen at the rungs, ascending; the last is the end of a trial.

    Rungs are a factor ``budget.reduction`` apart and rounded up to whole batches.
    """
    batch = budget.batch_size
    exact = [budget.max_examples / budget.reduction**k for k in range(budget.rungs, -1, -1)]
    return tuple(sorted({math.ceil(examples / batch) * batch for examples in exact}))


class Rungs:
    """Who goes on. Pure bookkeeping: losses in, decisions out."""

    def __init__(self, reduction: int) -> None:
        self.reduction = reduction
        self.losses: dict[tuple[str, int], dict[str, float]] = {}
        """(arm, examples seen) -> trial -> loss."""
        self._points: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {}
        """The same with costs, where there are several objectives."""
        self._sorted: dict[tuple[str, int], list[float]] = {}
        """The same losses, ascending."""

    def record(
        self, arm: str, trial: str, examples_seen: int, loss: float, costs: tuple[float, ...] = ()
    ) -> bool:
        """Note a trial's validation loss at a rung; True if the trial goes on.

        It does if it is among the best ``1 / reduction`` of its arm's earlier arrivals at the rung,
        or the first. (The stopping variant of ASHA, as in Ray Tune: nothing ever waits.) A trial
        that reports a rung again, after a restart, is judged against the same others. Where
        ``costs`` count too, it also goes on if none of them beats it in all.
        """
        rung = self.losses.setdefault((arm, examples_seen), {})
        others = self._sorted.setdefault((arm, examples_seen), [])
        if trial in rung:
            del others[bisect_left(others, rung[trial])]
        goes_on = not others or loss <= quantile(others, 1 / self.reduction)
        if costs:
            points, point = self._points.setdefault((arm, examples_seen), {}), (loss, *costs)
            rivals = [other for name, other in points.items() if name != trial]
            goes_on = goes_on or not any(objectives.beats(other, point) for other in rivals)
            points[trial] = point
        rung[trial] = loss
        insort(others, loss)
        return goes_on


def quantile(ascending: Sequence[float], share: float) -> float:
    """The value below which ``share`` of them lie, interpolated as ``numpy.percentile`` does."""
    place = share * (len(ascending) - 1)
    below = int(place)
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    return low + (high - low) * (place - below)
