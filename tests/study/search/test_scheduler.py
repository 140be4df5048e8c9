"""The rules of a study, played with made-up losses: no model, no Ray."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest

from search_spaces.declare import Arm, Choice, LogUniform, Range, Space, method, training
from study.analysis.arm_scores import by_prompt
from study.config.budget import floor
from study.search.scheduler import StudyScheduler
from study.trials.record import Outcome, TrialEnd
from study.trials.spec import Kind
from tests.study.made_up import SPACE, play, play_all, rules, rung
from trainables.data.common.wording import BRIEF
from trainables.training.regime import Regime

Begin = Callable[..., StudyScheduler]


def drawn(scheduler: StudyScheduler) -> list[tuple[str, str]]:
    return [(r.spec.id, str(r.outcome)) for r in scheduler.journal.records.values()]


def test_a_study_searches_then_confirms_the_best_of_each_arm_with_new_seeds(begin: Begin) -> None:
    scheduler = play_all(begin())
    records = list(scheduler.journal.records.values())
    kinds = [r.spec.kind for r in records]
    assert kinds == [Kind.SEARCH] * 12 + [Kind.UNTUNED] + [Kind.CONFIRM] * 4
    for arm, best in scheduler.best().items():
        confirmed = [r.spec for r in scheduler.journal.of_kind(Kind.CONFIRM) if r.spec.arm == arm]
        assert [s.seed for s in confirmed] == [1, 2]
        assert all(s.parameters == best.spec.parameters for s in confirmed)
        assert best.outcome is Outcome.COMPLETE
        assert best.loss == min(
            r.loss
            for r in scheduler.journal.of_kind(Kind.SEARCH)
            if r.spec.arm == arm and r.outcome is Outcome.COMPLETE
        )


def test_an_untuned_model_that_fits_nowhere_is_not_run(begin: Begin) -> None:
    scheduler = play_all(begin(given=replace(rules(), untuned=False)))
    assert scheduler.done
    assert len(scheduler.journal.of_kind(Kind.CONFIRM)) == 4
    assert not scheduler.journal.of_kind(Kind.UNTUNED)


def test_the_untuned_model_is_asked_as_the_best_trial_is(begin: Begin) -> None:
    asked = training(prompt=Choice("{question}", "Well, {question}"), warmup=0.1)
    arms = {name: arm.with_training(asked.settings) for name, arm in SPACE.arms.items()}
    scheduler = play_all(begin(given=rules(space=replace(SPACE, arms=arms))))
    (untuned,) = scheduler.journal.of_kind(Kind.UNTUNED)
    best = min(scheduler.best().values(), key=lambda record: record.loss)
    assert untuned.spec.training == {"prompt": best.spec.training["prompt"]}
    plain = play_all(begin(folder="plain"))
    (untuned,) = plain.journal.of_kind(Kind.UNTUNED)
    assert untuned.spec.training == {}


def test_an_untuned_model_that_follows_instructions_is_also_asked_for_a_word(begin: Begin) -> None:
    given = replace(rules(), brief=True)
    scheduler = play_all(begin(given=given))
    brief, untuned = scheduler.journal.of_kind(Kind.UNTUNED)
    assert (brief.spec.training, untuned.spec.training) == ({"prompt": BRIEF}, {})
    assert by_prompt([brief, untuned]) == (untuned, brief) and by_prompt([brief]) == (brief, None)
    play_all(begin(folder="older"))
    older = begin(given=given, folder="older")
    assert older.done, "a study that an earlier version ended runs nothing again"


def test_every_arm_gets_its_floor_even_if_another_looks_better(begin: Begin) -> None:
    scheduler = play_all(begin(given=rules(trials=30)))
    counts = Counter(r.spec.arm for r in scheduler.journal.of_kind(Kind.SEARCH))
    assert counts.total() == 30
    assert min(counts.values()) >= floor(30, 2, "floor") == 9


def test_trials_can_be_divided_equally_or_go_where_they_pay(begin: Begin) -> None:
    equal = play_all(begin(folder="equal", given=rules(trials=25, allocate="equal")))
    counts = Counter(r.spec.arm for r in equal.journal.of_kind(Kind.SEARCH))
    assert sorted(counts.values()) == [12, 13]
    assert floor(25, 2, "joint") == 1
    joint = play_all(begin(folder="joint", given=rules(trials=25, allocate="joint")))
    counts = Counter(r.spec.arm for r in joint.journal.of_kind(Kind.SEARCH))
    assert counts.total() == 25 and set(counts) == set(SPACE.arms)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.OUT_OF_MEMORY])
def test_an_arm_that_always_fails_gets_its_floor_and_no_more(
    begin: Begin, outcome: Outcome
) -> None:
    """TPE learns nothing from failures: left to it, what is unknown looks best, for ever."""
    scheduler = begin(given=rules(trials=40))
    while not scheduler.done:
        spec = scheduler.next()
        assert spec is not None
        if spec.arm == "lora":
            scheduler.ended(spec.id, TrialEnd(outcome=outcome, error="too big"))
        else:
            play(scheduler, spec)
    counts = Counter(r.spec.arm for r in scheduler.journal.of_kind(Kind.SEARCH))
    assert counts == {"layernorm": 28, "lora": 12}


def test_tpe_finds_the_good_learning_rates(begin: Begin) -> None:
    scheduler = play_all(begin(given=rules(trials=40)))
    late = scheduler.journal.of_kind(Kind.SEARCH)[-10:]
    assert sum(1e-3 < r.spec.lr < 1e-2 for r in late) >= 6


def test_optuna_is_told_pruned_with_the_curve(begin: Begin) -> None:
    scheduler = play_all(begin())
    trials = scheduler.journal.studies["search"].get_trials()
    for record in scheduler.journal.of_kind(Kind.SEARCH):
        told = trials[record.number]
        assert told.intermediate_values == {
            r.examples_seen: r.validation_loss for r in record.rungs
        }
        pruned = record.outcome is Outcome.PRUNED
        expected = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        assert told.state is expected
    assert any(r.outcome is Outcome.PRUNED for r in scheduler.journal.of_kind(Kind.SEARCH))


def test_a_report_that_was_heard_before_stops_nobody(begin: Begin) -> None:
    """A trial whose checkpoint was lost is trained again: it passed that rung, and goes on."""
    scheduler = begin(given=rules(space=Space(question="?", arms={"wide": WIDE})))
    first, *others = (scheduler.next() for _ in range(4))
    assert first is not None
    reported = rung(first, first.stops[0])
    assert scheduler.reported(first.id, reported)
    for other in others:
        assert other is not None
        better = replace(rung(other, other.stops[0]), validation_loss=-1.0)
        assert scheduler.reported(other.id, better)
    assert scheduler.reported(first.id, reported)
    record = scheduler.journal.records[first.id]
    assert [r.examples_seen for r in record.rungs] == [first.stops[0]]
    worse = replace(rung(first, first.stops[1]), validation_loss=9.0)
    assert scheduler.reported(first.id, worse), "it is the first there"


@pytest.mark.parametrize("killed_after", [0, 1, 5, 12, 14])
def test_a_killed_study_goes_on_to_the_same_end(begin: Begin, killed_after: int) -> None:
    whole = drawn(play_all(begin(folder="whole")))
    first = play_all(begin(folder="killed"), most=killed_after)
    cut = first.next()  # starts, reports once, and is never heard of again
    assert cut is not None
    if cut.stops:
        first.reported(cut.id, rung(cut, cut.stops[0]))
    second = begin(folder="killed")
    again = second.next()
    assert again == cut
    play(second, again)
    assert drawn(play_all(second)) == whole
    assert begin(folder="killed").done


def test_who_was_told_to_stop_when_the_study_was_killed_ends_when_it_goes_on(begin: Begin) -> None:
    scheduler = begin()
    while True:
        stopped = scheduler.next()
        assert stopped is not None
        if not scheduler.reported(stopped.id, rung(stopped, stopped.stops[0])):
            break  # killed before its end is noted
        play(scheduler, stopped)
    again = begin()
    other = again.next()
    assert other is not None and other.id != stopped.id
    record = again.journal.records[stopped.id]
    assert record.outcome is Outcome.PRUNED and len(record.rungs) == 1
    assert record.costs == {"seconds": stopped.stops[0] / 100}


def arm(*, ranks: int, rates: Range | float) -> Arm:
    return Arm(everywhere=method("lora", rank=Choice(*range(1, 1 + ranks))), lr=rates)


WIDE = Arm(everywhere=method("layernorm"), lr=LogUniform(1e-4, 1e-1))


@pytest.mark.parametrize("allocate", ["joint", "floor", "equal"])
@pytest.mark.parametrize("narrow", [arm(ranks=1, rates=1e-3), arm(ranks=3, rates=1e-3)])
@pytest.mark.parametrize("narrow_first", [True, False])
def test_an_arm_of_few_points_has_them_tried_once_and_takes_nothing_from_others(
    begin: Begin, allocate: str, narrow: Arm, narrow_first: bool
) -> None:
    arms = {"narrow": narrow, "wide": WIDE} if narrow_first else {"wide": WIDE, "narrow": narrow}
    given = rules(space=Space(question="?", arms=arms), trials=16, allocate=allocate)
    journal = play_all(begin(given=given)).journal
    points = 1 if narrow.slots["everywhere"].settings["rank"] == Choice(1) else 3
    assert journal.tried == journal.draws
    assert journal.tried == {"narrow": points, "wide": 16 - points}


@pytest.mark.parametrize("most", [7, 999])
def test_no_draw_is_wasted_on_what_was_tried(begin: Begin, most: int) -> None:
    """TPE would draw the best of 15 points again and again; and it is all the same if killed."""
    arms = {"wide": WIDE, "grid": arm(ranks=3, rates=Choice(1e-4, 3e-4, 1e-3, 3e-3, 1e-2))}
    given = rules(space=Space(question="?", arms=arms), trials=24, allocate="equal")
    play_all(begin(given=given), most=most)
    journal = play_all(begin(given=given)).journal
    assert journal.tried == journal.draws == {"wide": 12, "grid": 12}


def test_a_choice_of_tuples_is_searched_and_goes_on_as_it_was(begin: Begin) -> None:
    targets = Choice("all", ("query", "value"), ("ffn",))
    space = Space(question="?", arms={"a": Arm(everywhere=method("lora", targets=targets), lr=0.1)})
    given = rules(space=space, trials=9)
    scheduler = begin(given=given)
    first = scheduler.next()
    assert first is not None
    again = begin(given=given)
    assert again.next() == first
    play(again, first)
    play_all(again)
    searched = again.journal.of_kind(Kind.SEARCH)
    found = {str(record.spec.parameters["lora.targets"]) for record in searched}
    assert found == {"all", "['query', 'value']", "['ffn']"} and len(searched) == 3
    read = begin(given=given).journal.records
    assert {key: record.spec for key, record in read.items()} == {
        key: record.spec for key, record in again.journal.records.items()
    }


def test_a_search_ends_when_all_points_were_tried(begin: Begin) -> None:
    arms = {"two": arm(ranks=2, rates=1e-3), "three": arm(ranks=3, rates=1e-3)}
    arms["equal values"] = Arm(everywhere=method("lora"), lr=Choice(1, 1.0, 1.0, 2))
    given = rules(space=Space(question="?", arms=arms), trials=100)
    scheduler = play_all(begin(given=given))
    assert scheduler.journal.draws == {"two": 2, "three": 3, "equal values": 3}
    assert len(scheduler.journal.of_kind(Kind.CONFIRM)) == 6
    assert begin(given=given).done


def test_confirmation_waits_for_the_search(begin: Begin) -> None:
    scheduler = begin()
    specs = [scheduler.next() for _ in range(12)]
    assert scheduler.next() is None and not scheduler.done
    for spec in specs:
        assert spec is not None
        play(scheduler, spec)
    first = scheduler.next()
    assert first is not None and first.kind is Kind.UNTUNED


def test_an_arm_whose_trials_all_fail_is_left_out_of_the_confirmation(begin: Begin) -> None:
    scheduler = begin()
    while not scheduler.done:
        spec = scheduler.next()
        assert spec is not None
        if spec.arm == "lora":
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.DIVERGED, error="nan"))
        else:
            play(scheduler, spec)
    assert set(scheduler.best()) == {"layernorm"}
    assert {r.spec.arm for r in scheduler.journal.of_kind(Kind.CONFIRM)} == {"layernorm"}


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.FAILED])
def test_what_failed_is_not_the_best_though_it_got_furthest(begin: Begin, outcome: Outcome) -> None:
    scheduler = begin(given=rules(space=Space(question="?", arms={"wide": WIDE}), trials=4))
    specs = [scheduler.next() for _ in range(4)]
    (first, other, last, far) = [spec for spec in specs if spec is not None]
    for spec, stop in ((far, 0), (first, 0), (far, 1), (other, 0), (last, 0)):
        scheduler.reported(spec.id, rung(spec, spec.stops[stop]))
    assert scheduler.best()["wide"].spec == far, "so far"
    scheduler.ended(last.id, TrialEnd(outcome=outcome, error="too far"))
    scheduler.ended(far.id, TrialEnd(outcome=outcome, error="too far"))
    better = min(first, other, key=lambda spec: scheduler.journal.records[spec.id].loss)
    assert scheduler.best()["wide"].spec == better
    for spec in (first, other):
        scheduler.ended(spec.id, TrialEnd(outcome=Outcome.PRUNED))
    assert scheduler.best()["wide"].spec == better
    assert begin(given=scheduler.rules).best() == scheduler.best()


def test_what_failed_is_the_best_where_nothing_else_is(begin: Begin) -> None:
    scheduler = begin()
    spec = scheduler.next()
    assert spec is not None
    scheduler.reported(spec.id, rung(spec, spec.stops[0]))
    scheduler.ended(spec.id, TrialEnd(outcome=Outcome.DIVERGED, error="nan"))
    assert scheduler.best()[spec.arm].spec == spec


def test_another_seed_gives_other_trials(begin: Begin) -> None:
    one = play_all(begin(folder="one"))
    other = play_all(begin(folder="other", given=rules(seed=1)))
    assert not set(one.journal.records) & set(other.journal.records)
    assert list(SPACE.arms) == list(one.rules.space.arms)


def test_trials_of_several_batch_sizes_are_compared_at_the_same_rungs(begin: Begin) -> None:
    """How far a trial got counts in rungs: rounding up to a whole batch is no head start."""
    trained = Arm(
        everywhere=method("lora"),
        lr=LogUniform(1e-5, 1e-1),
        training=training(batch_size=Choice(32, 200), warmup=Choice(0.0, 0.05), beta2=0.99),
    )
    scheduler = play_all(begin(given=rules(space=Space(question="?", arms={"a": trained}))))
    rungs, searched = scheduler.rungs, scheduler.journal.of_kind(Kind.SEARCH)
    assert rungs == (128, 320, 960)
    stops = {r.spec.batch_size: r.spec.stops for r in searched}
    assert stops == {32: rungs, 200: (200, 400, 1000)}
    for record in searched:
        spec = record.spec
        assert spec.max_examples == spec.stops[-1]
        assert spec.parameters["batch_size"] == spec.batch_size
        warmup = spec.parameters["warmup"]
        assert spec.training == {"beta2": 0.99} | ({} if warmup else {"warmup": 0.0})
        assert spec.config(Regime()).training.beta2 == 0.99
    assert {level for _, level in scheduler.stopper.losses} == {*rungs[:-1]}
    assert sum(len(at) for (_, level), at in scheduler.stopper.losses.items() if level == 128) == 12
    assert scheduler.best()["a"].loss == min(
        r.loss for r in searched if r.outcome is Outcome.COMPLETE
    )
    told = scheduler.journal.studies["search"].get_trials()
    assert {step for t in told for step in t.intermediate_values} == {*rungs}
    assert drawn(begin(given=rules(space=Space(question="?", arms={"a": trained})))) == drawn(
        scheduler
    )


def diverging(scheduler: StudyScheduler, *, below_best: bool) -> StudyScheduler:
    """Play a study in which LoRA's first trial at a learning rate far below (or above) the best
    one, 3e-3, diverges."""
    struck = False
    while not scheduler.done:
        spec = scheduler.next()
        assert spec is not None
        there = spec.lr < 1e-3 if below_best else spec.lr > 5e-3
        if spec.kind is Kind.SEARCH and spec.arm.startswith("lora") and there and not struck:
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.DIVERGED, error="nan"))
            struck = True
        else:
            play(scheduler, spec)
    assert struck
    return scheduler


UNSTEADY = replace(rules(), times_if_diverged=2)


def test_an_arm_that_diverged_at_no_larger_rate_than_its_best_has_twice_the_seeds(
    begin: Begin,
) -> None:
    scheduler = diverging(begin(given=UNSTEADY), below_best=True)
    confirmed = scheduler.journal.of_kind(Kind.CONFIRM)
    assert Counter(r.spec.arm for r in confirmed) == {"layernorm": 2, "lora": 4}
    assert [r.spec.seed for r in confirmed if r.spec.arm == "lora"] == [1, 2, 3, 4]
    (lr,) = [r.spec.lr for r in scheduler.journal.records.values() if r.outcome is Outcome.DIVERGED]
    assert scheduler.diverged_at() == {"lora": lr} and lr <= scheduler.best()["lora"].spec.lr
    assert begin(given=UNSTEADY).done, "it goes on to the same number"


def test_an_arm_that_diverged_only_at_larger_rates_has_no_more_seeds(begin: Begin) -> None:
    scheduler = diverging(begin(given=UNSTEADY), below_best=False)
    assert Counter(r.spec.arm for r in scheduler.journal.of_kind(Kind.CONFIRM)) == {
        "layernorm": 2,
        "lora": 2,
    }
    assert scheduler.diverged_at() == {}


def test_a_study_that_is_older_than_this_rule_keeps_its_number_of_seeds(begin: Begin) -> None:
    scheduler = diverging(begin(), below_best=True)
    assert len(scheduler.journal.of_kind(Kind.CONFIRM)) == 4 and scheduler.diverged_at() == {}


def test_all_searches_of_an_arm_have_more_seeds(begin: Begin) -> None:
    arms = {f"{arm}{mark}": SPACE.arms[arm] for mark in ("", "#2") for arm in SPACE.arms}
    given = replace(rules(space=replace(SPACE, arms=arms), trials=24), searches=2)
    scheduler = diverging(begin(given=replace(given, times_if_diverged=2)), below_best=True)
    assert Counter(r.spec.arm for r in scheduler.journal.of_kind(Kind.CONFIRM)) == {
        "layernorm": 2,
        "layernorm#2": 2,
        "lora": 4,
        "lora#2": 4,
    }
