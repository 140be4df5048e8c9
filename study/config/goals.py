"""Goals of a study: what the search minimises (``--objective``) and what it may cost (``--under``).

``--objective score`` minimises the validation loss. ``--objective score,memory`` asks for a
trade-off: a trial dominates another if it is as good in all objectives and better in one, and the
trials that none dominates are the Pareto front. Unless ``--search`` names another searcher, points
are drawn by TPE for several objectives (Ozaki et al. 2020, doi 10.1145/3377930.3389817). Early
stopping (after Schmucker et al. 2021, arXiv 2106.12639) lets every trial on the front go on.
Confirmation still takes each arm's best by loss: the front is a result of the search alone, and is
presented as such.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind
from trainables.errors import BadInput, unknown

LIMITED_COSTS = {
    "memory": ("peak_memory_gib", {"GiB": 1.0, "MiB": 2.0**-10}),
    "parameters": ("trained_parameters", {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9}),
    "percent": ("trained_percent", {"": 1.0, "%": 1.0}),
    "seconds": ("seconds", {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}),
}
"""Cost in ``--under`` -> its name in ``TrialRecord.costs``, and its units."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Upper limit of one cost."""

    cost: str
    """Name of the cost in ``TrialRecord.costs``."""
    below: float
    """Value that the cost must stay below, in the unit of ``TrialRecord.costs``."""

    def holds(self, costs: Mapping[str, float]) -> bool:
        """Whether ``costs`` stay below the limit. A cost that is unknown does not."""
        return self.cost in costs and costs[self.cost] < self.below


def within_limits(limits: Sequence[Limit], record: TrialRecord) -> bool:
    """Whether a trial that has reported a rung keeps all limits. Its costs are known when it ends,
    so a running trial keeps none. A trial that was stopped early counts with the seconds that it
    would have taken if it had gone on."""
    if not limits:
        return True
    costs = dict(record.costs)
    if "seconds" in costs:
        costs["seconds"] *= record.spec.max_examples / record.examples_seen
    return record.outcome is not None and all(limit.holds(costs) for limit in limits)


def parse_limits(text: str | None) -> tuple[Limit, ...]:
    """Limits that ``--under`` names, separated by commas.

    Raises:
        BadInput: a limit cannot be read.
    """
    limits = tuple(_limit(part.strip()) for part in text.split(",")) if text else ()
    if len({limit.cost for limit in limits}) < len(limits):
        raise BadInput(f"--under {text!r} limits a cost twice; limit each once")
    return limits


def _limit(text: str) -> Limit:
    found = re.fullmatch(r"([a-z]+)\s*<\s*([0-9.]+(?:e-?[0-9]+)?)\s*([A-Za-z%]*)", text)
    if found is None:
        raise BadInput(f"--under {text!r} must be like memory<8GiB or parameters<1M")
    name, value, unit = found.groups()
    if name not in LIMITED_COSTS:
        raise unknown("cost in --under", name, list(LIMITED_COSTS))
    cost, units = LIMITED_COSTS[name]
    if unit not in units:
        allowed = ", ".join(u or "none" for u in units)
        raise BadInput(f"--under {text!r}: the unit of {name} must be one of: {allowed}")
    try:
        below = float(value) * units[unit]
    except ValueError:
        raise BadInput(f"--under {text!r}: {value!r} is no number") from None
    if not below > 0:
        raise BadInput(f"--under {text!r}: nothing costs less than 0; give a larger limit")
    if below == math.inf:
        raise BadInput(f"--under {text!r} is no limit; leave it away")
    return Limit(cost=cost, below=below)


SCORE = "score"
"""Objective that every search has: the validation loss."""
COSTS = {
    "memory": "peak_memory_gib",
    "parameters": "trained_parameters",
    "seconds": "seconds",
}
"""Cost in ``--objective`` -> its name in ``TrialRecord.costs``."""
COST_TOLERANCE = 0.02
"""Share by which two costs must differ to count as different: two measurements of the same trial
differ by less."""


def parse_objectives(text: str) -> tuple[str, ...]:
    """Costs that ``--objective`` minimises beside the validation loss, by their names in
    ``TrialRecord.costs``.

    Raises:
        BadInput: ``text`` cannot be read.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in (SCORE, *COSTS):
            raise unknown("value of --objective", name, [SCORE, *COSTS])
    if SCORE not in names or len(set(names)) < len(names):
        raise BadInput(f"--objective {text} must be score, or score and costs: score,memory")
    return tuple(COSTS[name] for name in names if name != SCORE)


def point(loss: float, costs: Mapping[str, float], names: Sequence[str]) -> tuple[float, ...]:
    """Values of one trial that are minimised: its loss, then the costs in ``names``."""
    return loss, *(costs[name] for name in names)


def dominates(
    one: Sequence[float], other: Sequence[float], *, cost_tolerance: float = COST_TOLERANCE
) -> bool:
    """Whether ``one`` is as good as ``other`` in everything and better in something. Both are made
    by ``point``. Costs that differ by a smaller share than ``cost_tolerance`` count as equal."""
    costs = list(zip(one[1:], other[1:], strict=True))
    as_good = one[0] <= other[0] and all(a <= b * (1 + cost_tolerance) for a, b in costs)
    better = one[0] < other[0] or any(a < b * (1 - cost_tolerance) for a, b in costs)
    return as_good and better


def pareto_front(records: Iterable[TrialRecord], names: Sequence[str]) -> list[TrialRecord]:
    """Complete search trials that no other dominates in its loss and the costs in ``names``, by
    ascending loss."""
    whole = [r for r in records if r.spec.kind is Kind.SEARCH and r.outcome is Outcome.COMPLETE]
    points = {r.spec.id: point(r.loss, r.costs, names) for r in whole}
    kept = [r for r in whole if not any(dominates(p, points[r.spec.id]) for p in points.values())]
    return sorted(kept, key=lambda r: r.loss)
