"""How long a study is said to take, before it runs and while it does."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from search_spaces.declare import Budget
from study.planning.foretold_time import (
    BETWEEN,
    BUSY,
    STARTING,
    QuestionCounts,
    TimeForecast,
    TimeLeft,
)
from study.search.scheduler import StudyScheduler
from study.trials.spec import Kind
from tests.study.made_up import play, rules
from trainables.training.step_seconds import StepSeconds

RULES = rules()
STEPS = StepSeconds(training=0.01, frozen=0.0, validation=0.004, answer=0.02)
QUESTIONS = QuestionCounts(train=1000, validation=100, test=200, ood=50)
FORECAST = TimeForecast(
    steps={"layernorm": STEPS, "lora": replace(STEPS, training=0.03)},
    budget=RULES.budget,
    trials=RULES.budget.trials,
    stop="none",
    seeds=RULES.confirm_seeds,
    untuned=1,
    questions=QUESTIONS,
    devices=1,
)


def test_a_trial_takes_what_it_trains_validates_and_answers() -> None:
    assert FORECAST.stops == (128, 320, 960)
    validation = 100 * 0.004
    assert FORECAST.trial(Kind.SEARCH, "lora", 320) == pytest.approx(320 * 0.03 + 2 * validation)
    trained = 960 * 0.03 + 3 * validation
    assert FORECAST.trial(Kind.SEARCH, "lora") == pytest.approx(trained + 100 * 0.02)
    # The test questions are asked three times, twice of other images, and two answers compared.
    answers = (100 + 3 * 200 + 50) * 0.02 + 2 * 200 * 0.004
    assert FORECAST.trial(Kind.CONFIRM, "lora") == pytest.approx(trained + answers)
    assert FORECAST.trial(Kind.UNTUNED, "untuned") == pytest.approx(answers)


def test_a_search_without_early_stopping_takes_all_trials_whole() -> None:
    mean = sum(FORECAST.trial(Kind.SEARCH, arm) for arm in FORECAST.steps) / 2
    assert FORECAST.search.about == pytest.approx(12 * (BUSY[0] * mean + BETWEEN[0]))
    longest = FORECAST.trial(Kind.SEARCH, "lora")
    assert FORECAST.search.most == pytest.approx(12 * (BUSY[1] * longest + BETWEEN[1]))
    assert replace(FORECAST, devices=2).search.about == pytest.approx(FORECAST.search.about / 2)


def test_early_stopping_saves_what_it_saved_in_played_searches() -> None:
    """``tests.benchmarks.searchers``: 48 trials by ``gp`` cost 29.1 whole trainings by ``median``
    and 21.0 by ``asha``."""
    alone = replace(STEPS, validation=0.0, answer=0.0)
    budget = Budget(trials=48, max_examples=960, rungs=2)
    played = replace(FORECAST, steps={"lora": alone}, budget=budget)
    whole = played.trial(Kind.SEARCH, "lora")
    for stop, cost in (("none", 48.0), ("median", 29.1), ("asha", 21.0)):
        assert 48 * replace(played, stop=stop).searched / whole == pytest.approx(cost, rel=0.15)


def test_what_is_frozen_is_computed_once_and_not_in_each_step() -> None:
    frozen = replace(STEPS, frozen=0.003)
    cached = replace(FORECAST, steps=dict.fromkeys(FORECAST.steps, frozen))
    assert cached.frozen.about == pytest.approx(1100 * 0.003)
    assert cached.trial(Kind.SEARCH, "lora", 320) == pytest.approx(320 * 0.007 + 2 * 100 * 0.001)


def test_the_parts_are_the_whole_and_about_is_never_above_most() -> None:
    parts = FORECAST.parts.values()
    assert FORECAST.whole.about == pytest.approx(sum(part.about for part in parts))
    assert all(0 <= part.about <= part.most for part in parts)
    assert FORECAST.start.about == STARTING[0]
    assert replace(FORECAST, begun=8.0).start.about == pytest.approx(10, abs=1)


@pytest.mark.parametrize("slower", [0.5, 1.0, 3.0])
def test_what_is_left_is_near_the_truth_whatever_the_pace(
    begin: Callable[..., StudyScheduler], slower: float
) -> None:
    """A study in which each second of the forecast takes ``slower`` seconds. What was left at each
    of its events is compared with what then passed."""
    now = 0.0
    left = TimeLeft(FORECAST, clock=lambda: now)
    scheduler = begin(left)
    said: list[tuple[float, float]] = []
    first = left.left()
    assert first is not None
    while (spec := scheduler.next()) is not None:
        record = scheduler.journal.records[spec.id]
        before = left._seconds(record)
        play(scheduler, spec)
        now += slower * (left._seconds(record) - before)
        left.search_over = scheduler.journal.search_over
        told = left.left()
        assert told is not None
        said.append((now, told))
    end = now + FORECAST.close.about
    assert len(said) == 12 + 4 + 1
    assert said[-1][1] == pytest.approx(FORECAST.close.about)
    for when, told in said[len(said) // 4 :]:
        assert told == pytest.approx(end - when, rel=0.3, abs=5)
    if slower == 1.0:
        assert 0.7 * end < first < 1.4 * end


def test_the_set_up_of_the_first_host_says_little_about_the_pace(
    begin: Callable[..., StudyScheduler],
) -> None:
    """In a study of a minute, the first trial takes five seconds instead of one."""
    quick = StepSeconds(training=1e-3, frozen=0.0, validation=1e-3, answer=1e-3)
    now = 0.0
    short = replace(FORECAST, steps=dict.fromkeys(FORECAST.steps, quick))
    left = TimeLeft(short, clock=lambda: now)
    scheduler = begin(left)
    spec = scheduler.next()
    assert spec is not None
    play(scheduler, spec)
    now = 5.0
    ahead = 11 * short.searched + 4 * short.trial(Kind.CONFIRM, "lora")
    ahead += short.trial(Kind.UNTUNED, "")
    told = left.left()
    assert told is not None
    assert told == pytest.approx(ahead + short.close.about, rel=0.35)


def test_without_measured_steps_nothing_is_left_to_say_before_a_trial_has_ended(
    begin: Callable[..., StudyScheduler],
) -> None:
    steps = TimeForecast.unmeasured(FORECAST.steps)
    now = 0.0
    left = TimeLeft(replace(FORECAST, steps=steps, measured=False), clock=lambda: now)
    scheduler = begin(left)
    assert left.left() is None
    spec = scheduler.next()
    assert spec is not None
    assert left.left() is None
    play(scheduler, spec)
    now = 10.0
    assert left.left() is not None
