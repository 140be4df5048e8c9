"""What every rule of early stopping keeps to, and what some of them do."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from study.config import search_methods
from study.search.scheduler import StudyScheduler
from study.trials.record import Outcome
from study.trials.spec import Kind
from tests.study.made_up import play, play_all, rules

ALL = search_methods.STOPPERS.names()
Begin = Callable[..., StudyScheduler]


@pytest.mark.parametrize("stop", ALL)
def test_a_slow_arm_is_not_stopped_by_a_fast_one(stop: str) -> None:
    stopper = search_methods.stopper(stop, 3)
    for number in range(9):
        stopper.record("fast", str(number), 64, 0.1)
    assert stopper.record("slow", "x", 64, 9.0)


@pytest.mark.parametrize("stop", ALL)
def test_reporting_a_rung_again_counts_once(stop: str) -> None:
    once, twice = search_methods.stopper(stop, 3), search_methods.stopper(stop, 3)
    chance = random.Random(0)
    for number in range(40):
        for seen in (32, 96):
            loss = chance.random()
            goes_on = once.record("arm", str(number), seen, loss)
            assert twice.record("arm", str(number), seen, loss) == goes_on
            assert twice.record("arm", str(number), seen, loss) == goes_on


@pytest.mark.parametrize("stop", ALL)
def test_the_best_so_far_goes_on(stop: str) -> None:
    stopper = search_methods.stopper(stop, 3)
    assert all(stopper.record("arm", str(n), 32, 1.0 - 0.01 * n) for n in range(30))


@pytest.mark.parametrize("stop", ALL)
def test_a_killed_study_judges_as_it_would_have(begin: Begin, stop: str) -> None:
    given = replace(rules(trials=20), stop=stop)
    whole = play_all(begin(folder="whole", given=given))
    play_all(begin(folder="killed", given=given), most=11)
    again = play_all(begin(folder="killed", given=given))

    def ends(scheduler: StudyScheduler) -> list[tuple[str, Outcome | None]]:
        return [(r.spec.id, r.outcome) for r in scheduler.journal.of_kind(Kind.SEARCH)]

    assert ends(again) == ends(whole)


def outcomes(begin: Begin, stop: str) -> Counter[Outcome | None]:
    """Outcomes of 60 trials at random points."""
    scheduler = begin(
        folder=stop, given=replace(rules(trials=60, allocate="equal"), search="random", stop=stop)
    )
    while len(scheduler.journal.of_kind(Kind.SEARCH)) < 60:
        spec = scheduler.next()
        assert spec is not None
        play(scheduler, spec)
    return Counter(record.outcome for record in scheduler.journal.of_kind(Kind.SEARCH))


def test_more_trials_end_early_the_stricter_the_rule(begin: Begin) -> None:
    stopped = [
        outcomes(begin, stop)[Outcome.PRUNED]
        for stop in ("none", "third", "hyperband", "median", "asha")
    ]
    assert stopped[0] == 0 < stopped[1] < min(stopped[2:4])
    assert max(stopped[2:4]) < stopped[4]
