"""What arms may still gain, and the search that follows it."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from search_spaces.declare import Arm, Choice, LogUniform, Space, Uniform, method
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.search.arm_gains import LEAST
from study.search.loss_slopes import SCORE, points_per_loss
from study.search.scheduler import StudyScheduler
from study.trials.gain import GainUnit, RemainingGain
from study.trials.record import Outcome, TrialEnd
from study.trials.spec import Kind
from tests.study.made_up import loss_of, play, rules
from trainables.errors import BadInput

POINTS = 40.0
"""Points for each unit of loss in these studies."""
RICH = Arm(
    everywhere=method("lora", rank=Choice(1, 2, 4, 8, 16), dropout=Uniform(0.0, 0.3)),
    lr=LogUniform(1e-6, 1e-1),
)
PLAIN = Arm(everywhere=method("layernorm"), lr=LogUniform(1e-3, 1e-2))
SPACE = Space(question="?", arms={"plain": PLAIN, "rich": RICH})
GIVEN = replace(
    rules(space=SPACE, trials=60, allocate="tuned"), search="gp", stop="median", tuned_to=1.0
)
Begin = Callable[..., StudyScheduler]


def search(scheduler: StudyScheduler, most: int = 10**6) -> list[str]:
    """Play the search, at most so many trials of it; arms in the order of the trials."""
    while len(scheduler.journal.of_kind(Kind.SEARCH)) < most:
        spec = scheduler.next()
        if spec is None or spec.kind is not Kind.SEARCH:
            break
        score = 80 - POINTS * loss_of(spec, spec.stops[-1])
        play(scheduler, spec, scores={"validation.overall": score})
    return [record.spec.arm for record in scheduler.journal.of_kind(Kind.SEARCH)]


def test_trials_go_where_more_may_be_gained_until_all_is_tuned(begin: Begin) -> None:
    scheduler = begin(given=GIVEN)
    counts = Counter(search(scheduler))
    assert counts.total() < 60
    assert counts["rich"] > counts["plain"] >= LEAST
    said = scheduler.gains.found()
    assert set(said) == set(SPACE.arms)
    assert all(gain.unit is GainUnit.POINTS for gain in said.values())
    for best in scheduler.best().values():
        assert POINTS * (best.loss - 100 / 960) < 3.0


def test_who_is_tuned_less_closely_takes_fewer_trials(begin: Begin) -> None:
    close = search(begin(folder="close", given=replace(GIVEN, tuned_to=0.2)))
    loose = search(begin(folder="loose", given=replace(GIVEN, tuned_to=5.0)))
    assert len(loose) <= len(close)


def test_a_killed_search_ends_where_it_would_have(begin: Begin) -> None:
    whole = search(begin(folder="whole", given=GIVEN))
    search(begin(folder="killed", given=GIVEN), most=9)
    assert search(begin(folder="killed", given=GIVEN)) == whole


def test_an_arm_that_always_fails_takes_few_trials(begin: Begin) -> None:
    scheduler = begin(given=GIVEN)
    number = 0
    while number < 40:
        spec = scheduler.next()
        if spec is None or spec.kind is not Kind.SEARCH:
            break
        number += 1
        if spec.arm == "rich":
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.DIVERGED))
        else:
            play(scheduler, spec)
    counts = Counter(r.spec.arm for r in scheduler.journal.of_kind(Kind.SEARCH))
    assert counts["rich"] <= 2 * LEAST


def test_an_arm_of_which_nothing_can_be_known_is_not_waited_for(begin: Begin) -> None:
    scheduler = begin(given=GIVEN)
    while (spec := scheduler.next()) is not None and spec.kind is Kind.SEARCH:
        if spec.arm == "rich":
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.FAILED))
        else:
            score = 80 - POINTS * loss_of(spec, spec.stops[-1])
            play(scheduler, spec, scores={"validation.overall": score})
    assert scheduler.journal.draws.total() < GIVEN.budget.trials
    assert scheduler.journal.tuned


def test_trials_at_a_time_are_divided_among_arms_that_may_gain(begin: Begin) -> None:
    """All devices do not go to the one arm that may gain a little more than the other."""
    arms = {"one": RICH, "other": RICH}
    scheduler = begin(given=replace(GIVEN, space=replace(SPACE, arms=arms), tuned_to=1e-9))
    search(scheduler, most=16)
    asked = [scheduler.next() for _ in range(8)]
    counts = Counter(spec.arm for spec in asked if spec is not None)
    assert counts.total() == 8 and min(counts["one"], counts["other"]) >= 2


def test_an_arm_is_waited_for_while_its_trials_run(begin: Begin) -> None:
    scheduler = begin(given=replace(GIVEN, tuned_to=1e9))
    waiting = []
    while len(waiting) < 2 * LEAST:
        spec = scheduler.next()
        assert spec is not None and spec.kind is Kind.SEARCH
        if spec.arm == "rich":
            waiting.append(spec)
        else:
            score = 80 - POINTS * loss_of(spec, spec.stops[-1])
            play(scheduler, spec, scores={"validation.overall": score})
    assert not scheduler.gains.tuned(["plain", "rich"], 1e9)


def test_an_arm_whose_first_trial_failed_gets_its_chance(begin: Begin) -> None:
    scheduler = begin(given=GIVEN)
    failed = False
    while (spec := scheduler.next()) is not None and spec.kind is Kind.SEARCH:
        if spec.arm == "rich" and not failed:
            failed = True
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.OUT_OF_MEMORY))
        else:
            score = 80 - POINTS * loss_of(spec, spec.stops[-1])
            play(scheduler, spec, scores={"validation.overall": score})
    assert scheduler.journal.tried["rich"] >= LEAST
    assert scheduler.best()["rich"].outcome is Outcome.COMPLETE


def test_an_arm_that_mostly_diverges_is_not_taken_for_tuned(begin: Begin) -> None:
    """Of its trials only those with low learning rates end, far from each other."""
    scheduler = begin(given=GIVEN)
    while (spec := scheduler.next()) is not None and spec.kind is Kind.SEARCH:
        if spec.arm == "rich" and spec.lr > 1e-5:
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.DIVERGED))
        else:
            score = 80 - POINTS * loss_of(spec, spec.stops[-1])
            play(scheduler, spec, scores={"validation.overall": score})
    gain = scheduler.gains.found().get("rich")
    assert scheduler.journal.tried["rich"] >= 2 * LEAST
    assert gain is None or gain.mean > 0.0


@pytest.mark.parametrize("seed", range(4))
def test_accuracy_that_is_noise_ends_no_search(begin: Begin, seed: int) -> None:
    """All trials answer the most frequent answer, or nearly so."""
    chance = random.Random(seed)
    scheduler = begin(given=replace(GIVEN, seed=seed, budget=replace(GIVEN.budget, trials=30)))
    while (spec := scheduler.next()) is not None and spec.kind is Kind.SEARCH:
        play(scheduler, spec, scores={"validation.overall": chance.gauss(31.9, 0.4)})
    assert scheduler.journal.draws.total() == 30


def test_the_upper_end_of_a_gain_reckons_with_what_a_smooth_process_misses(begin: Begin) -> None:
    """After forty trials the process is sure of a valley to less than a thousandth."""
    scheduler = begin(given=replace(GIVEN, allocate="equal"))
    search(scheduler, most=40)
    gain = scheduler.gains.loss("plain")
    assert gain is not None
    assert gain.low <= gain.mean < 1e-4
    median = 0.25**2  # of the loss above its lowest, over the arm's learning rates
    assert 0.01 * median < gain.high < 0.05 * median


def test_points_are_as_doubtful_as_losses_and_their_worth() -> None:
    in_loss = RemainingGain(mean=0.1, low=0.05, high=0.2)
    sure, doubtful = in_loss.in_points(50.0), in_loss.in_points(50.0, 10.0)
    assert (sure.mean, sure.low, sure.high) == (5.0, 2.5, 10.0)
    assert doubtful.mean == 5.0 and doubtful.low < 2.5 and doubtful.high > 10.0
    assert in_loss.in_points(50.0, 100.0).low == 0.0


def test_no_arm_gains_more_points_than_are_left(begin: Begin) -> None:
    scheduler = begin(given=replace(GIVEN, allocate="equal"))
    search(scheduler, most=24)
    by_loss = scheduler.gains.found()["rich"]
    searched = scheduler.journal.of_kind(Kind.SEARCH)
    records = [r for r in searched if r.spec.arm == "rich" and r.scores]
    missing = 99.5 - max(record.scores[SCORE] for record in records)
    for record in records:
        record.scores = {SCORE: record.scores[SCORE] + missing}
    assert by_loss.high > 0.5 and scheduler.gains.found()["rich"].high == pytest.approx(0.5)


def test_the_search_does_not_begin_again_once_it_has_ended_as_tuned(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gains may come out a little higher on another machine."""
    searched = search(begin(folder="one", given=GIVEN))
    again = begin(folder="one", given=GIVEN)
    assert again.journal.tuned and again.journal.search_over
    monkeypatch.setattr(type(again.gains), "tuned", lambda *_: False)
    assert search(again) == searched


def test_without_a_gain_in_accuracy_nothing_is_said_to_be_tuned(begin: Begin) -> None:
    """Trials of all losses have one accuracy: the loss says nothing of points."""
    scheduler = begin(given=replace(GIVEN, budget=replace(GIVEN.budget, trials=24)))
    while (spec := scheduler.next()) is not None and spec.kind is Kind.SEARCH:
        play(scheduler, spec, scores={"validation.overall": 50.0})
    assert scheduler.journal.draws.total() == 24 and not scheduler.journal.tuned
    assert scheduler.gains.slopes() == {}
    assert all(gain.unit is GainUnit.LOSS for gain in scheduler.gains.found().values())


def test_an_arm_all_of_whose_points_were_tried_gains_nothing(begin: Begin) -> None:
    few = Arm(everywhere=method("lora", rank=Choice(1, 2, 4)), lr=Choice(1e-3, 1e-2))
    space = Space(question="?", arms={"few": few, "rich": RICH})
    scheduler = begin(given=replace(GIVEN, space=space, tuned_to=1e-9))
    search(scheduler)
    assert scheduler.journal.tried["few"] == 6
    assert scheduler.gains.found()["few"].text == "0.000 of validation loss (0.000 to 0.000)"


def test_losses_become_points_by_the_trials_that_have_both(begin: Begin) -> None:
    scheduler = begin(given=replace(GIVEN, allocate="equal"))
    search(scheduler, most=3)
    assert scheduler.gains.slopes() == {}
    search(scheduler, most=24)
    slopes = scheduler.gains.slopes()
    assert slopes.keys() == SPACE.arms.keys()
    for slope in slopes.values():
        assert (slope.value, slope.error) == (pytest.approx(POINTS), pytest.approx(0.0, abs=1e-6))


def test_an_arm_of_enough_trials_has_a_slope_of_its_own(begin: Begin) -> None:
    """Accuracy of one arm rises by 10 points for each unit of loss, that of the other by 40."""
    scheduler = begin(given=replace(GIVEN, allocate="equal"))
    search(scheduler, most=40)
    records = [r for r in scheduler.journal.of_kind(Kind.SEARCH) if r.scores]
    plain = [record for record in records if record.spec.arm == "plain"]
    for record in plain:
        record.scores = {SCORE: 78 - 10 * record.loss}
    slopes = points_per_loss(records, SPACE.arms)
    assert slopes["plain"].value == pytest.approx(10.0, rel=0.2)
    assert slopes["rich"].value == pytest.approx(POINTS, rel=0.2)


def test_tuned_to_needs_the_allocation_that_heeds_it() -> None:
    assert StudyDefinition.parse(Settings(space="smoke", tuned_to=0.5)).tuned_to == 0.5
    assert StudyDefinition.parse(Settings(space="smoke", margin=2.0)).tuned_to == 2.0
    for asked in (
        {"allocate": "equal"},
        {"objective": "score,memory"},
        {"under": "parameters<1M"},
    ):
        with pytest.raises(BadInput, match="--tuned-to needs --allocate tuned"):
            StudyDefinition.parse(Settings(space="smoke", tuned_to=0.5, **asked))
