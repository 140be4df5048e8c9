"""Median stopping: the better half of an arm's trials goes on at each rung.

A trial is stopped if its validation loss is above the median of those that its arm's earlier trials
had at the same number of examples. Golovin et al. 2017 (doi 10.1145/3097983.3098043) compare a
trial's best loss with running averages of others; a validation loss at a few rungs has little noise
to average.
"""

from __future__ import annotations

from study.search.stoppers.common.rungs import ArmRungs

UNJUDGED = 4
"""First trials of an arm at a rung, which all go on: as many as its first points, so that the
searcher knows whole curves all over the arm's ranges."""


class Stopper(ArmRungs):
    """Rungs at which the better half goes on, whatever the ``reduction`` between rungs."""

    def __init__(self, reduction: int) -> None:
        super().__init__(1 / 2, unjudged=UNJUDGED)


def passing(reduction: int) -> float:
    """Share of an arm's trials that go on at a rung, roughly."""
    return 1 / 2
