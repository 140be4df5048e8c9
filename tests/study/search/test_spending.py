"""A study that may spend so much time: it ends with an answer, and in time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.declare import Arm, Space, method
from search_spaces.layernorm_vs_lora import SPACE
from study.config.spending_limit import SpendingLimit
from study.search.journal import StudyJournal
from study.search.scheduler import SearchRules, StudyScheduler
from study.search.spending import SpendingTracker
from study.trials.record import Outcome, TrialEnd
from study.trials.spec import Kind, TrialSpec
from tests.study.made_up import play, rules, rung

ANSWERS = 2.4
"""Seconds of a made-up search trial, beside 9.6 of training."""


class Clock:
    """Goes on when a trial has run: one device, nothing but trials."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spending(limit: SpendingLimit, clock: Callable[[], float]) -> SpendingTracker:
    return SpendingTracker(limit, devices=1, concurrency=1, scored=2.0, began=clock(), clock=clock)


def run(
    folder: Path,
    limit: SpendingLimit,
    clock: Clock,
    *,
    given: SearchRules | None = None,
    most: int = 999,
) -> StudyScheduler:
    """Run a study of at most 999 trials, each of which takes its time, to its end."""
    folder.mkdir(exist_ok=True)
    rule = given or rules(trials=999)
    scheduler = StudyScheduler(rule, StudyJournal(folder), [], spending(limit, clock))
    for _ in range(most):
        if scheduler.done:
            break
        spec = scheduler.next()
        assert spec is not None
        live(scheduler, spec, clock)
    return scheduler


def live(scheduler: StudyScheduler, spec: TrialSpec, clock: Clock) -> None:
    """Run one trial to its end; a confirmed one answers twice as many questions."""
    for before, stop in zip((0, *spec.stops), spec.stops, strict=False):
        clock.now += (stop - before) / 100
        goes_on = scheduler.reported(spec.id, rung(spec, stop))
        if not goes_on and stop < spec.stops[-1]:
            costs = {"seconds": stop / 100}
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.PRUNED, costs=costs))
            return
    answers = ANSWERS if spec.kind is Kind.SEARCH else 2 * ANSWERS
    clock.now += answers
    costs = {"seconds": max((0, *spec.stops)) / 100 + answers}
    scheduler.ended(spec.id, TrialEnd(outcome=Outcome.COMPLETE, costs=costs))


def spent(scheduler: StudyScheduler) -> float:
    return sum(r.costs["seconds"] for r in scheduler.journal.records.values())


@pytest.mark.parametrize("minutes", [4, 20])
def test_a_study_ends_in_time_with_every_arm_confirmed(tmp_path: Path, minutes: int) -> None:
    clock = Clock()
    scheduler = run(tmp_path / "one", SpendingLimit(seconds=60.0 * minutes), clock)
    assert 0.75 * 60 * minutes <= clock.now <= 60 * minutes
    assert scheduler.journal.cut_short
    assert len(scheduler.journal.of_kind(Kind.CONFIRM)) == 4
    assert all(r.outcome is not None for r in scheduler.journal.records.values())


def test_device_hours_are_those_of_trials(tmp_path: Path) -> None:
    scheduler = run(tmp_path / "one", SpendingLimit(device_seconds=600.0), Clock())
    assert 450 <= spent(scheduler) <= 600
    assert len(scheduler.journal.of_kind(Kind.CONFIRM)) == 4


def test_arms_share_the_trials_as_they_come(tmp_path: Path) -> None:
    scheduler = run(tmp_path / "one", SpendingLimit(seconds=1200.0), Clock())
    tried = scheduler.journal.tried
    assert min(tried.values()) >= 0.3 * tried.total() - 2, "60% are divided equally"


def test_an_arm_of_one_point_does_not_end_the_search(tmp_path: Path) -> None:
    arms = {"fixed": Arm(everywhere=method("layernorm"), lr=1e-3), "lora": SPACE.arms["lora"]}
    clock, space = Clock(), Space(question="?", arms=arms)
    given = rules(space=space, trials=999)
    scheduler = run(tmp_path / "one", SpendingLimit(seconds=600.0), clock, given=given)
    assert 450 <= clock.now <= 600
    assert scheduler.journal.tried["fixed"] == 1


def test_every_arm_has_its_trial_however_little_there_is(tmp_path: Path) -> None:
    scheduler = run(tmp_path / "one", SpendingLimit(seconds=1.0), Clock())
    assert set(scheduler.journal.tried) == set(scheduler.rules.space.arms)
    assert scheduler.journal.tried.total() == 2
    assert {r.spec.arm for r in scheduler.journal.of_kind(Kind.CONFIRM)} == set(scheduler.best())


def test_what_was_spent_and_decided_is_remembered(tmp_path: Path) -> None:
    clock, limit = Clock(), SpendingLimit(seconds=600.0)
    run(tmp_path / "one", limit, clock, most=20)
    before = clock.now
    clock.now += 1e6  # interrupted for days, which are not counted
    began = clock.now
    run(tmp_path / "one", limit, clock)
    assert 450 <= before + clock.now - began <= 600
    again = StudyScheduler(
        rules(trials=999), StudyJournal(tmp_path / "one"), [], spending(limit, clock)
    )
    assert again.done and again.journal.cut_short


@pytest.mark.parametrize("costs", [{}, {"seconds": 0.1}])
def test_what_a_lost_trial_took_is_not_forgotten(tmp_path: Path, costs: dict[str, float]) -> None:
    limit = SpendingLimit(device_seconds=600.0)
    first = spending(limit, Clock())
    scheduler = StudyScheduler(rules(), StudyJournal(tmp_path), [], first)
    spec = scheduler.next()
    assert spec is not None
    scheduler.reported(spec.id, rung(spec, spec.stops[0]))
    scheduler.ended(spec.id, TrialEnd(outcome=Outcome.FAILED, costs=costs, error="its host died"))
    resumed = spending(limit, Clock())
    StudyScheduler(rules(), StudyJournal(tmp_path), [], resumed)
    assert first.device_seconds == resumed.device_seconds == spec.stops[0] / 100


def test_a_running_trial_is_stopped_at_its_next_rung(tmp_path: Path) -> None:
    clock = Clock()
    folder = tmp_path / "one"
    folder.mkdir()
    scheduler = StudyScheduler(
        rules(trials=999), StudyJournal(folder), [], spending(SpendingLimit(seconds=600.0), clock)
    )
    specs = [scheduler.next() for _ in range(3)]
    clock.now = 600.0
    assert scheduler.next() is None, "the search has ended"
    for spec in specs:
        assert spec is not None
        assert play(scheduler, spec) is Outcome.PRUNED
        assert len(scheduler.journal.records[spec.id].rungs) == 1
    first = scheduler.next()
    assert first is not None and first.kind is Kind.UNTUNED
