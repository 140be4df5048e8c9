"""Better than before: a trial goes on if it is the best of its arm that came to the rung."""

from __future__ import annotations

import math


class Stopper:
    """The lowest loss of each arm at each rung."""

    def __init__(self, reduction: int) -> None:
        self.best: dict[tuple[str, int], dict[str, float]] = {}
        """(arm, level) -> trial -> loss."""

    def record(
        self, arm: str, trial: str, level: int, loss: float, costs: tuple[float, ...] = ()
    ) -> bool:
        """Record a trial's validation loss at the rung ``level``. Return whether it goes on."""
        losses = self.best.setdefault((arm, level), {})
        losses.setdefault(trial, loss)
        earlier = [other for name, other in losses.items() if name != trial]
        return loss <= min(earlier, default=math.inf)


def passing(reduction: int) -> float:
    """Share of an arm's trials that go on at a rung, roughly."""
    return 1 / reduction
