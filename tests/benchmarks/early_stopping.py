"""Early stopping, replayed on learning curves of real trials that nothing stopped.

``python -m tests.benchmarks.early_stopping``: the curves of ``record_curves`` (the embedded model,
four arms, learning rates drawn from their ranges) pass our rungs in many random orders, two trials
at a time, with rungs kept for each arm (ours) and with rungs that all arms share (plain ASHA).

*saved*: training examples of the search without stopping, over those with it. *Regret*: the final
validation loss of the configuration that would be confirmed, above the best there was; of the whole
study, and of each arm, since arms are compared by their best. *Lost*: arms of which no trial got to
the end, so that their best is a guess.
"""

from __future__ import annotations

import heapq
import json
import random
from statistics import mean, median
from typing import Any

from study.search.stoppers.asha import Stopper
from tests.benchmarks.record_curves import FILE, REDUCTIONS, stops

ORDERS = 200
AT_A_TIME = 2
SHARED = "all arms"


class Curve:
    """A recorded trial."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.arm: str = recorded["arm"]
        self.losses = {int(seen): loss for seen, loss in recorded["losses"].items()}
        self.whole = "diverged" not in recorded
        self.final = self.losses[max(self.losses)] if self.whole else float("inf")


def replay(curves: list[Curve], levels: tuple[int, ...], reduction: int, *, per_arm: bool) -> Any:
    """Pass the curves through rungs in this order: examples trained on, and how far each got."""
    rungs, waiting = Stopper(reduction), list(enumerate(curves))[::-1]
    reached: dict[int, int] = {}
    now, trained = 0, 0
    running: list[tuple[int, int, int]] = []
    """(when, trial, rung) of those at work; the clock is examples."""
    while waiting or running:
        while waiting and len(running) < AT_A_TIME:
            number, _ = waiting.pop()
            heapq.heappush(running, (now + levels[0], number, 0))
            trained += levels[0]
        now, number, rung = heapq.heappop(running)
        curve, seen = curves[number], levels[rung]
        if seen not in curve.losses:  # it diverged on the way
            continue
        reached[number] = seen
        if rung == len(levels) - 1:
            continue
        arm = curve.arm if per_arm else SHARED
        if rungs.record(arm, str(number), seen, curve.losses[seen]):
            further = levels[rung + 1] - seen
            heapq.heappush(running, (now + further, number, rung + 1))
            trained += further
    return trained, reached


def regret(curves: list[Curve], reached: dict[int, int]) -> float:
    """Regret of the trial that the scheduler chooses: the lowest loss of those furthest on."""
    if not reached:
        return float("inf")
    chosen = min(reached, key=lambda n: (-reached[n], curves[n].losses[reached[n]]))
    return curves[chosen].final - min(curve.final for curve in curves)


def main() -> None:
    """Print the table."""
    recorded = [Curve(json.loads(line)) for line in FILE.read_text().splitlines()]
    arms = sorted({curve.arm for curve in recorded})
    counts = ", ".join(f"{arm} {sum(c.arm == arm for c in recorded)}" for arm in arms)
    best = {arm: min(c.final for c in recorded if c.arm == arm) for arm in arms}
    print(f"{len(recorded)} curves ({counts}), {ORDERS} orders, {AT_A_TIME} at a time")
    print("best final losses: " + ", ".join(f"{arm} {loss:.3f}" for arm, loss in best.items()))
    head = f"{'saved':>6} {'regret':>8} {'regret of an arm':>18} {'lost':>6}"
    print(f"{'reduction':>9} {'rungs':>8} {head}")
    print(f"{'':9} {'':8} {'median':>6} {'mean':>8} {'mean':>9} {'worst':>8} {'mean':>6}")
    for reduction in REDUCTIONS:
        levels = stops(reduction)
        for per_arm in (True, False):
            saved, whole, of_arms, lost = [], [], [], []
            for order in range(ORDERS):
                curves = random.Random(order).sample(recorded, len(recorded))
                trained, reached = replay(curves, levels, reduction, per_arm=per_arm)
                saved.append(len(curves) * levels[-1] / trained)
                whole.append(regret(curves, reached))
                ends = 0
                for arm in arms:
                    own = [n for n, curve in enumerate(curves) if curve.arm == arm]
                    some = [curves[n] for n in own]
                    got = {i: reached[n] for i, n in enumerate(own) if n in reached}
                    of_arms.append(regret(some, got))
                    ends += levels[-1] in got.values()
                lost.append(len(arms) - ends)
            print(
                f"{reduction:9} {'per arm' if per_arm else 'shared':>8} {median(saved):6.2f} "
                f"{mean(whole):8.4f} {mean(of_arms):9.4f} {max(of_arms):8.4f} {mean(lost):6.2f}"
            )


if __name__ == "__main__":
    main()
