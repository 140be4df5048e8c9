"""What an arm's best may cost at most: ``--under "memory<8GiB,parameters<1M"``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.records import TrialRecord
from trainables.errors import BadInput, unknown

COSTS = {
    "memory": ("peak_memory_gib", {"GiB": 1.0, "MiB": 2.0**-10}),
    "parameters": ("trained_parameters", {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9}),
    "percent": ("trained_percent", {"": 1.0, "%": 1.0}),
    "seconds": ("seconds", {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}),
}
"""Name -> what it is called in ``TrialRecord.costs``, and its units."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One cost must stay below one value."""

    cost: str
    """As in ``TrialRecord.costs``."""
    below: float

    def holds(self, costs: Mapping[str, float]) -> bool:
        """Whether it does, as far as is known: an unknown cost keeps no limit."""
        return self.cost in costs and costs[self.cost] < self.below


def kept(limits: Sequence[Limit], record: TrialRecord) -> bool:
    """Whether a trial with a report keeps all limits. Its costs are told when it ends; one that was
    stopped counts with the seconds that it would have taken if it had gone on."""
    if not limits:
        return True
    costs = dict(record.costs)
    if "seconds" in costs:
        costs["seconds"] *= record.spec.max_examples / record.examples_seen
    return record.outcome is not None and all(limit.holds(costs) for limit in limits)


def parse(text: str | None) -> tuple[Limit, ...]:
    """The limits that ``--under`` names, with commas between.

    Raises:
        BadInput: one that cannot be read.
    """
    return tuple(_limit(part.strip()) for part in text.split(",")) if text else ()


def _limit(text: str) -> Limit:
    found = re.fullmatch(r"([a-z]+)\s*<\s*([0-9.]+(?:e-?[0-9]+)?)\s*([A-Za-z%]*)", text)
    if found is None:
        raise BadInput(f"--under {text!r} must be like memory<8GiB or parameters<1M")
    name, value, unit = found.groups()
    if name not in COSTS:
        raise unknown("cost in --under", name, list(COSTS))
    cost, units = COSTS[name]
    if unit not in units:
        allowed = ", ".join(u or "none" for u in units)
        raise BadInput(f"--under {text!r}: the unit of {name} must be one of: {allowed}")
    try:
        below = float(value) * units[unit]
    except ValueError:
        raise BadInput(f"--under {text!r}: {value!r} is no number") from None
    return Limit(cost=cost, below=below)
