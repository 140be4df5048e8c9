"""Arithmetic on a budget: rungs, the minimum of trials that each arm gets, and its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search_spaces.declare import Budget


def floor(trials: int, arms: int, allocate: str) -> int:
    """Minimum number of trials that each of ``arms`` arms gets of ``trials``; ``allocate`` is a key
    of ``ALLOCATE``."""
    return max(1, int(ALLOCATE[allocate] * trials) // arms)


def levels(budget: Budget) -> tuple[int, ...]:
    """Examples seen at the rungs, ascending; the last is the end of a trial.

    Rungs are a factor ``budget.reduction`` apart and rounded up to whole batches.
    """
    batch = budget.batch_size
    exact = [budget.max_examples / budget.reduction**k for k in range(budget.rungs, -1, -1)]
    return tuple(sorted({math.ceil(examples / batch) * batch for examples in exact}))


def stops(levels: Sequence[int], batch_size: int) -> tuple[int, ...]:
    """Examples seen at which a trial with batches of ``batch_size`` reports: each of ``levels``
    rounded up to whole batches, those that become one taken together."""
    return tuple(sorted({math.ceil(level / batch_size) * batch_size for level in levels}))


def reached(levels: Sequence[int], examples_seen: int) -> int:
    """The last of ``levels`` that a trial has reached, 0 before the first. Trials whose batches
    differ in size report the same one at other numbers of examples."""
    return max((level for level in levels if level <= examples_seen), default=0)


TIMES_IF_DIVERGED = 2
"""Multiple of ``--seeds`` with which an arm is confirmed of which a search trial diverged at a
learning rate no larger than that of its best trial, in studies that begin now; why, is said in
``study.search.unsteady_arms``."""
TIMES_IF_COLLAPSED = 2
"""Multiple of ``--seeds`` for an arm of which a search trial collapsed;
``study.search.unsteady_arms`` says what that is."""
RISE = 1.3
"""Ratio of a validation loss to earlier and to slower trials' above which a search trial
collapsed."""
ALLOCATE = {"joint": 0.0, "floor": 0.6, "equal": 1.0, "tuned": 0.0}
"""Way of allocating trials -> share of them that is divided equally among the arms. The rest goes
to the arms that do best or, with ``tuned``, to the arms that may still gain most."""
