"""ASHA (Li et al. 2020, arXiv 1810.05934) with separate rungs for each arm.

The best ``1 / reduction`` of a rung's arrivals go on. This is the stopping variant of ASHA, as in
Ray Tune: nothing ever waits.
"""

from __future__ import annotations

from study.search.stoppers.common.rungs import ArmRungs


class Stopper(ArmRungs):
    """Rungs at which the best ``1 / reduction`` go on."""

    def __init__(self, reduction: int) -> None:
        super().__init__(1 / reduction)


def passing(reduction: int) -> float:
    """Share of an arm's trials that go on at a rung, roughly."""
    return 1 / reduction
