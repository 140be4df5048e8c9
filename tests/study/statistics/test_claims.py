"""A quick version of ``python -m tests.benchmarks.coverage``: what is claimed is mostly so, and a
formula that is broken is seen."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from study.statistics import pairwise, uncertainty, winner
from study.statistics.moderated import Moderated
from study.statistics.score_types import Claim
from tests.benchmarks.claims import Counts, Row, holds, measure, percent
from tests.benchmarks.coverage import World
from tests.benchmarks.searches import Pools, Search

STUDIES = 60
SIX = Row(name="six arms", world=World(images=40, questions=2, of_seed=0.2), arms=6)
STEADY = World(images=100, questions=4, of_seed=0.045)
METHODS = Row(name="methods", world=STEADY, surface="made", trials=24, claim=Claim.METHODS)


class Made(Pools):
    """Searches that lose a few points, or ten in one of four: nothing is played."""

    def of(self, surface: str, after: int) -> list[Search]:
        return [Search(lost=lost, said=None) for lost in (0.5, 1.0, 2.0, 10.0)] if surface else []


def counted(row: Row) -> Counts:
    return measure(row, STUDIES, Made(), replicates=150)


def wrong(row: Row) -> list[str]:
    """Which of the aims were missed by more than 60 studies can be off."""
    found, missed = counted(row), []
    aims = {
        "covers": percent(found.covers)[0] >= 90,
        "false": percent(found.false)[0] <= 10,
        "best": percent(found.best)[0] >= 86,
        "width": percent(found.covers)[0] <= 99.2,
    }
    missed += [name for name, reached in aims.items() if not reached]
    return missed


@pytest.mark.parametrize("row", [SIX, METHODS], ids=lambda row: row.name)
def test_what_is_claimed_is_mostly_so(row: Row) -> None:
    assert wrong(row) == []


def plain(scores_A: np.ndarray, covariance_AA: np.ndarray, free: float) -> tuple[float, ...]:
    """The best arm's interval, as if it had not been chosen."""
    best = int(np.argmax(scores_A))
    sd = float(np.sqrt(covariance_AA[best, best]))
    return scores_A[best], scores_A[best] - 1.96 * sd, scores_A[best] + 1.96 * sd


def scaled(factor: float) -> Callable[[Sequence[float], Sequence[int]], list[Moderated]]:
    """Variances between seeds that are all wrong by one factor."""
    return lambda variances, freedoms: [Moderated(variance=factor * each) for each in variances]


@pytest.mark.parametrize(
    ("where", "name", "broken", "seen"),
    [
        (uncertainty, "moderate", scaled(0.25), "covers"),
        (uncertainty, "moderate", scaled(9.0), "width"),
        (pairwise, "holm", list, "false"),
        (winner, "of_best", plain, "best"),
    ],
    ids=["variances too small", "too large", "no correction", "the choice forgotten"],
)
def test_a_broken_formula_is_seen(
    where: object,
    name: str,
    broken: Callable[..., object],
    seen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, name, broken)
    assert seen in wrong(SIX)


def test_the_luck_of_a_search_is_seen_where_it_is_in_no_interval() -> None:
    """One search of each arm: the models differ as their interval says, the methods do not."""
    found = counted(replace(METHODS, claim=Claim.MODELS))
    assert percent(found.covers)[0] >= 90
    assert percent(found.of_methods)[0] < 90 and percent(found.false_of_methods)[0] > 10


@pytest.mark.parametrize(
    ("covers", "best", "false", "kept"),
    [
        (0.95, 0.95, 0.04, True),
        (0.95, 0.88, 0.04, False),
        (0.88, 0.95, 0.04, False),
        (0.95, 0.95, 0.12, False),
        (0.95, 1.0, 0.04, False),
    ],
    ids=["all", "the best arm's too short", "differences' too short", "false", "too wide"],
)
def test_a_row_holds_if_differences_the_best_arm_and_findings_do(
    covers: float, best: float, false: float, kept: bool
) -> None:
    def shares(share: float) -> list[bool]:
        return [number < 300 * share for number in range(300)]

    counts = Counts(
        covers=[float(one) for one in shares(covers)], best=shares(best), false=shares(false)
    )
    assert holds(counts) is kept


def test_few_studies_that_all_hold_are_not_held_to_be_too_wide() -> None:
    sixty = Counts(covers=[1.0] * 57 + [0.0] * 3, best=[True] * 60, false=[False] * 60)
    assert holds(sixty)
