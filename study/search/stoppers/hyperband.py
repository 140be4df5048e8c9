"""Asynchronous Hyperband (Li et al. 2018, arXiv 1603.06560; Li et al. 2020, arXiv 1810.05934).

Early losses may mislead, so not all trials are judged from the first rung on. An arm's trials
are divided among brackets. In bracket ``s``, trials pass the first ``s`` rungs unjudged; from there
on the best ``1 / reduction`` of the bracket's arrivals go on, as in ASHA. Hyperband gives every
bracket about the same number of training examples, so bracket ``s`` gets ``reduction ** -s`` of the
trials of bracket 0; the arm's next trial goes to the bracket that lacks most.
"""

from __future__ import annotations

from collections import Counter

from study.search.stoppers.common.rungs import ArmRungs

BRACKETS = 3
"""Brackets of an arm."""


class Stopper:
    """Brackets of all arms. A trial is given its bracket when it first reports."""

    def __init__(self, reduction: int) -> None:
        self.weights = [float(reduction) ** -bracket for bracket in range(BRACKETS)]
        self.rungs = ArmRungs(1 / reduction)
        self._bracket: dict[tuple[str, str], int] = {}
        """(arm, trial) -> bracket."""
        self._sizes: dict[str, Counter[int]] = {}
        """Arm -> bracket -> number of trials."""
        self._passed: dict[tuple[str, str], list[int]] = {}
        """(arm, trial) -> rungs at which it has reported."""

    def record(
        self, arm: str, trial: str, level: int, loss: float, costs: tuple[float, ...] = ()
    ) -> bool:
        """Record a trial's validation loss at a rung. Return whether the trial goes on."""
        bracket = self._bracket.setdefault((arm, trial), self._next_bracket(arm, trial))
        passed = self._passed.setdefault((arm, trial), [])
        if level not in passed:
            passed.append(level)
        if passed.index(level) < bracket:
            return True
        # An arm's name holds no slash, so brackets are not taken for arms.
        return self.rungs.record(f"{arm}/{bracket}", trial, level, loss, costs)

    def _next_bracket(self, arm: str, trial: str) -> int:
        """Bracket of an arm's trial, which has one already or is new."""
        if (arm, trial) in self._bracket:
            return self._bracket[arm, trial]
        sizes = self._sizes.setdefault(arm, Counter())
        bracket = min(range(BRACKETS), key=lambda b: ((sizes[b] + 1) / self.weights[b], b))
        sizes[bracket] += 1
        return bracket


def passing(reduction: int) -> float:
    """Share of an arm's trials that go on at a rung, roughly."""
    return 1 / reduction
