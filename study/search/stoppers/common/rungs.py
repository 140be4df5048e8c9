"""Losses of each arm at each rung: whether a trial is among the best that came there before.

A trial is compared only with trials of its own arm at the same rung. So a method that starts slowly
is never stopped by the fast start of another. Trials whose batches differ in size report a rung at
slightly different numbers of examples.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

from study.config import goals


class ArmRungs:
    """Rungs of all arms. It is pure bookkeeping: losses in, decisions out."""

    def __init__(self, share: float, unjudged: int = 1) -> None:
        """Let the best ``share`` of the trials at a rung go on, and the first ``unjudged``."""
        self.share, self.unjudged = share, unjudged
        self.losses: dict[tuple[str, int], dict[str, float]] = {}
        """(arm, level) -> trial -> loss."""
        self._points: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {}
        """(arm, level) -> trial -> loss and costs, where there are several objectives."""
        self._sorted: dict[tuple[str, int], list[float]] = {}
        """(arm, level) -> losses, ascending."""

    def record(
        self, arm: str, trial: str, level: int, loss: float, costs: tuple[float, ...] = ()
    ) -> bool:
        """Record a trial's validation loss at a rung. Return whether the trial goes on.

        It goes on if it is among the best ``share`` of its arm's earlier arrivals at the rung, or
        among the first. A trial that reports a rung again, after a restart, is judged against the
        others. If ``costs`` count too, it also goes on if none of the others beats it in all
        objectives.
        """
        rung = self.losses.setdefault((arm, level), {})
        others = self._sorted.setdefault((arm, level), [])
        if trial in rung:
            del others[bisect_left(others, rung[trial])]
        goes_on = len(others) < self.unjudged or loss <= float(np.quantile(others, self.share))
        if costs:
            points, point = self._points.setdefault((arm, level), {}), (loss, *costs)
            rivals = [other for name, other in points.items() if name != trial]
            goes_on = goes_on or not any(goals.dominates(other, point) for other in rivals)
            points[trial] = point
        rung[trial] = loss
        insort(others, loss)
        return goes_on
