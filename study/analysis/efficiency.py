"""Relates scores to costs: Pareto fronts, score against search budget, and how forgiving an arm is.

Everything comes from records of trials that ran anyway; nothing is run for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from study.analysis.efficiency_types import (
    COSTS,
    BudgetCurves,
    BudgetLeader,
    BudgetPoint,
    LearningRateRange,
)
from study.analysis.result_types import ArmResult
from study.config.goals import dominates
from study.trials.record import Outcome, TrialRecord

Array = np.ndarray[Any, Any]
ORDERS = 2000
"""Number of orders of a search's trials that are drawn."""
BUDGETS = 24
"""Number of points of a budget curve."""
GOOD = 0.05
"""A learning rate is good if its validation loss is above the best one by at most this fraction."""
FEWEST = 4
"""Number of trials below which no range of learning rates is given."""


def pareto(arms: Sequence[ArmResult]) -> dict[str, tuple[str, ...]]:
    """Cost -> arms on the front of test score and that cost, which no other arm dominates. Costs
    of arms are compared as they are: sizes are exact, and what is measured is a mean."""
    tested = [arm for arm in arms if arm.test]

    def front(cost: str) -> tuple[str, ...]:
        points = {arm.arm: (-arm.overall.mean, arm.costs[cost]) for arm in tested}
        return tuple(
            arm
            for arm, point in points.items()
            if not any(dominates(other, point, cost_tolerance=0.0) for other in points.values())
        )

    return {cost: front(cost) for cost in COSTS}


def budget_curves(
    searched: Mapping[str, Sequence[TrialRecord]], untuned: float
) -> BudgetCurves | None:
    """Validation accuracy that a search of an arm is expected to end with, against its cost.

    The expected best of so many trials, of all orders in which an arm's trials may come: trials are
    drawn without replacement, by which it has no bias (Tang et al. 2020, arXiv 2004.14164; Dodge et
    al. 2019, arXiv 1909.03004, draw with replacement, by which it is too low). Costs are in
    device-seconds, since trials that are stopped early cost less, and no curve goes beyond what
    was spent on its arm. After so many seconds, the result of a search is its complete
    trial with the lowest validation loss; before there is one, it is the untuned model, whose
    accuracy is ``untuned``. Most searchers draw later trials where earlier ones were good, so a
    curve flatters the beginning of a real search a little.

    In which share of searches an arm is ahead is not said: orders of one search's trials all end
    alike, so that of two equal arms one would be ahead in 100% of them.

    Returns:
        The curves of the arms, and the arm that is expected to be ahead at some budgets; None if
        no arm has a complete trial.
    """
    drawn = np.random.default_rng(0)
    totals = {
        arm: sum(r.costs.get("seconds", 0.0) for r in records)
        for arm, records in searched.items()
        if any(_validation(r) is not None for r in records)
    }
    if not totals:
        return None
    whole = [r for arm in totals for r in searched[arm] if _validation(r) is not None]
    first = min(r.costs["seconds"] for r in whole) / 2
    budgets_B = np.geomspace(first, max(totals.values()), BUDGETS)
    ends = {}
    for arm, total in totals.items():
        within_B = budgets_B[budgets_B <= total * (1 + 1e-9)]
        ends[arm] = _searches(searched[arm], within_B, untuned, drawn)
    common = min(totals.values())
    return BudgetCurves(
        untuned=untuned,
        arms={
            arm: tuple(
                BudgetPoint(
                    seconds=float(budget),
                    mean=float(end_R.mean()),
                    low=float(np.percentile(end_R, 10)),
                    high=float(np.percentile(end_R, 90)),
                )
                for budget, end_R in zip(budgets_B, ends_BR, strict=False)
            )
            for arm, ends_BR in ends.items()
        },
        leaders=tuple(
            _leader(searched, totals, common * share, untuned) for share in (0.05, 0.25, 1.0)
        ),
    )


def _leader(
    searched: Mapping[str, Sequence[TrialRecord]],
    totals: Mapping[str, float],
    budget: float,
    untuned: float,
) -> BudgetLeader:
    """The arm that is expected to be ahead, of arms searched for ``budget`` device-seconds each."""
    drawn = np.random.default_rng(0)
    at_B = np.array([budget])
    ends_AR = np.stack([_searches(searched[arm], at_B, untuned, drawn)[0] for arm in totals])
    best = int(ends_AR.mean(1).argmax())
    return BudgetLeader(
        seconds=budget,
        arm=list(totals)[best] if ((ends_AR != untuned).mean(1) > 0.5).any() else None,
        expected=float(ends_AR[best].mean()),
    )


def _searches(
    records: Sequence[TrialRecord], budgets_B: Array, untuned: float, drawn: np.random.Generator
) -> Array:
    """Accuracy that simulated searches have at each budget; shape (B, R)."""
    costs_T = np.array([r.costs.get("seconds", 0.0) for r in records])
    scores = [_validation(r) for r in records]
    complete_T = np.array([score is not None for score in scores])
    scores_T = np.array([untuned if score is None else score for score in scores])
    losses_T = np.where(complete_T, [r.loss for r in records], math.inf)
    order_RN = drawn.permuted(np.tile(np.arange(len(records)), (ORDERS, 1)), axis=1)
    spent_RN = costs_T[order_RN].cumsum(1)
    lost_RN = np.minimum.accumulate(losses_T[order_RN], axis=1)
    by_loss = np.argsort(losses_T, kind="stable")
    ends = []
    for budget in budgets_B:
        done_R = (spent_RN <= budget * (1 + 1e-9)).sum(1)
        best_R = np.where(
            done_R > 0, lost_RN[np.arange(ORDERS), np.maximum(done_R - 1, 0)], math.inf
        )
        place_R = np.searchsorted(losses_T[by_loss], best_R)
        score_R = scores_T[by_loss][np.minimum(place_R, len(records) - 1)]
        ends.append(np.where(np.isfinite(best_R), score_R, untuned))
    return np.stack(ends) if ends else np.empty((0, ORDERS))


def learning_rates(
    searched: Mapping[str, Sequence[TrialRecord]],
) -> dict[str, LearningRateRange | None]:
    """Arm -> its range of good learning rates and the range's width in decades; None if too few
    trials.

    The range is judged at the first rung, which all trials reach. A learning rate is good if a
    trial with it, whatever its other settings, comes within 5 % of the arm's lowest loss there. On
    a logarithmic scale, each quarter of a decade is represented by its best trial. The edge of the
    range is where the loss, interpolated between neighbours, crosses that limit. ``open_low`` and
    ``open_high`` say that no trial beyond was worse, so that the range may well go on.
    """
    return {arm: _range(records) for arm, records in searched.items()}


def _range(records: Sequence[TrialRecord]) -> LearningRateRange | None:
    """The range of good learning rates of one arm; None if it has too few trials."""
    seen = min((r.rungs[0].examples_seen for r in records if r.rungs), default=0)
    found = [
        (math.log10(r.spec.lr), r.rungs[0].validation_loss if r.rungs else math.inf)
        for r in records
        if r.rungs or r.outcome is Outcome.DIVERGED
    ]
    if len(found) < FEWEST or not seen:
        return None
    quarters: dict[int, tuple[float, float]] = {}
    for lr, loss in found:
        quarter = math.floor(4 * lr)
        if quarter not in quarters or loss < quarters[quarter][1]:
            quarters[quarter] = lr, loss
    tried = sorted(quarters.values())
    best = min(range(len(tried)), key=lambda i: tried[i][1])
    limit = tried[best][1] * (1 + GOOD)

    def edge(step: int) -> tuple[float, bool]:
        """One end of the range, as log10 of the learning rate, and whether it is open."""
        good = best
        for i in range(best, len(tried) if step > 0 else -1, step):
            if tried[i][1] <= limit:
                good = i
        beyond = good + step
        if not 0 <= beyond < len(tried):
            return tried[good][0], True
        (lr, loss), (next_lr, next_loss) = tried[good], tried[beyond]
        share = (limit - loss) / (next_loss - loss) if math.isfinite(next_loss) else 0.5
        return lr + (next_lr - lr) * share, False

    (low, open_low), (high, open_high) = edge(-1), edge(1)
    return LearningRateRange(
        examples_seen=seen,
        best=10 ** tried[best][0],
        low=10**low,
        high=10**high,
        decades=high - low,
        open_low=open_low,
        open_high=open_high,
        trials=len(found),
    )


def _validation(record: TrialRecord) -> float | None:
    """Validation accuracy in percent; None for a trial that was stopped."""
    return record.scores.get("validation.overall")
