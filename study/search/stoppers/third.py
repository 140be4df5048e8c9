"""A third stops: the better two thirds of an arm's trials go on at each rung.

It stops fewer trials than ``median``, for arms whose best trials start slowly, as those right below
a learning rate at which training fails do.
"""

from __future__ import annotations

from study.search.stoppers.common.rungs import ArmRungs
from study.search.stoppers.median import UNJUDGED


class Stopper(ArmRungs):
    """Rungs at which the better two thirds go on, whatever the ``reduction`` between rungs."""

    def __init__(self, reduction: int) -> None:
        super().__init__(2 / 3, unjudged=UNJUDGED)


def passing(reduction: int) -> float:
    """Share of an arm's trials that go on at a rung, roughly."""
    return 2 / 3
