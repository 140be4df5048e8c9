"""What the search looks for: ``--objective score``, or a trade-off, ``--objective score,memory``.

``score`` is the validation loss, as ever. With costs beside it, a trial is better than another only
if it is in all of them; those that none is better than are the front of the trade-off. TPE (of
several objectives: Ozaki et al. 2020, doi 10.1145/3377930.3389817) draws near the front, and early
stopping (after Schmucker et al. 2021, arXiv 2106.12639) lets whoever is on it go on. What is
confirmed stays each arm's best by loss: the front is the search's, and told as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from study.records import Kind, Outcome, TrialRecord
from trainables.errors import BadInput, unknown

SCORE = "score"
COSTS = {
    "memory": "peak_memory_gib",
    "parameters": "trained_parameters",
    "seconds": "seconds",
}
"""Name -> what it is called in ``TrialRecord.costs``."""
SAME = 0.02
"""Costs that differ by less than this share are the same: two measurements of one trial do."""


def parse(text: str) -> tuple[str, ...]:
    """The costs that are to be low beside the validation loss, as ``TrialRecord.costs`` has them.

    Raises:
        BadInput: it cannot be read.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in (SCORE, *COSTS):
            raise unknown("value of --objective", name, [SCORE, *COSTS])
    if SCORE not in names or len(set(names)) < len(names):
        raise BadInput(f"--objective {text} must be score, or score and costs: score,memory")
    return tuple(COSTS[name] for name in names if name != SCORE)


def point(loss: float, costs: Mapping[str, float], names: Sequence[str]) -> tuple[float, ...]:
    """What is to be low: the loss first."""
    return loss, *(costs[name] for name in names)


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether ``one`` is as good in everything and better in something; points as of ``point``."""
    low = [a <= b for a, b in zip(one[:1], other[:1], strict=True)]
    low += [a <= b * (1 + SAME) for a, b in zip(one[1:], other[1:], strict=True)]
    better = one[0] < other[0] or any(
        a < b * (1 - SAME) for a, b in zip(one[1:], other[1:], strict=True)
    )
    return all(low) and better


def front(records: Iterable[TrialRecord], names: Sequence[str]) -> list[dict[str, Any]]:
    """The complete search trials that none beats, the best loss first: ``trial, arm, parameters``,
    ``validation_loss``, ``validation_percent`` (accuracy) and each cost of ``names``."""
    whole = [r for r in records if r.spec.kind is Kind.SEARCH and r.outcome is Outcome.COMPLETE]
    points = {r.spec.id: point(r.loss, r.costs, names) for r in whole}
    kept = [r for r in whole if not any(beats(p, points[r.spec.id]) for p in points.values())]
    return [
        {
            "trial": r.spec.id,
            "arm": r.spec.arm,
            "parameters": dict(r.spec.parameters),
            "validation_loss": r.loss,
            "validation_percent": r.scores.get("validation.overall"),
            **{name: r.costs[name] for name in names},
        }
        for r in sorted(kept, key=lambda r: r.loss)
    ]
