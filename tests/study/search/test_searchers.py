"""What every searcher keeps to, whichever file it is."""

import math
from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest

from search_spaces.declare import Arm, Choice, LogUniform, Space, Uniform, method
from study.config import search_methods, spaces
from study.search.scheduler import StudyScheduler
from study.search.searchers.common.known_trials import LATEST
from study.trials.record import Outcome, TrialEnd
from study.trials.spec import Kind, TrialSpec
from tests.study.made_up import play, play_all, rules, rung
from trainables.errors import BadInput

ALL = [*search_methods.SEARCHERS.names(), *search_methods.OPTUNA]
WIDE = Arm(
    everywhere=method(
        "lora",
        rank=Choice(8, 2, 32),
        rank_stabilized=Choice(False, True),
        dropout=Uniform(0.0, 0.2),
    ),
    lr=LogUniform(1e-5, 1e-2),
)
SPACE = Space(
    question="?",
    arms={"wide": WIDE, "plain": Arm(everywhere=method("layernorm"), lr=LogUniform(1e-4, 1e-1))},
)
Begin = Callable[..., StudyScheduler]


def drawn(scheduler: StudyScheduler) -> list[TrialSpec]:
    return [record.spec for record in scheduler.journal.of_kind(Kind.SEARCH)]


@pytest.mark.parametrize("search", ALL)
def test_points_lie_in_their_ranges_and_none_is_drawn_twice(begin: Begin, search: str) -> None:
    given = replace(rules(space=SPACE, trials=40, allocate="equal"), search=search)
    found = drawn(play_all(begin(given=given)))
    assert len(found) == 40 == len({spec.id for spec in found})
    for spec in found:
        ranges = spaces.ranges(SPACE.arms[spec.arm])
        assert spec.parameters.keys() == ranges.keys()
        for name, value in spec.parameters.items():
            values = ranges[name]
            if isinstance(values, Choice):
                assert value in values.values
            else:
                assert values.low <= value <= values.high
    rates = [spec.lr for spec in found if spec.arm == "plain"]
    assert min(rates) < 10 ** (-4 + 0.75) and max(rates) > 10 ** (-4 + 2.25), "first points"


@pytest.mark.parametrize("search", ALL)
def test_all_points_of_a_small_arm_are_drawn_once(begin: Begin, search: str) -> None:
    small = Arm(everywhere=method("lora", rank=Choice(1, 2, 4)), lr=Choice(1e-4, 1e-3))
    space = Space(question="?", arms={"small": small})
    given = replace(rules(space=space, trials=16), search=search)
    found = drawn(play_all(begin(given=given)))
    assert len(found) == 6 == len({spec.id for spec in found})


@pytest.mark.parametrize("search", ALL)
def test_a_killed_study_goes_on_to_the_same_trials(begin: Begin, search: str) -> None:
    given = replace(rules(space=SPACE, trials=16, allocate="equal"), search=search)
    whole = drawn(play_all(begin(folder="whole", given=given)))
    first = play_all(begin(folder="killed", given=given), most=9)
    cut = first.next()
    assert cut is not None
    again = begin(folder="killed", given=given)
    assert again.next() == cut
    play(again, cut)
    assert drawn(play_all(again)) == whole
    other = play_all(begin(folder="other", given=replace(given, seed=1)))
    if search != "grid":
        assert [spec.lr for spec in drawn(other)] != [spec.lr for spec in whole]


@pytest.mark.parametrize("search", ["NSGAIISampler", "NSGAIIISampler"])
def test_a_genetic_algorithm_learns_from_its_second_generation_on(
    begin: Begin, search: str
) -> None:
    space = replace(SPACE, arms={"wide": WIDE})
    given = replace(rules(space=space, trials=100, allocate="equal"), search=search, stop="none")
    found = [abs(math.log10(spec.lr) + 2.5) for spec in drawn(play_all(begin(given=given)))]
    assert sum(found[75:]) < 0.8 * sum(found[:25])


def test_every_sampler_of_optuna_is_a_searcher_or_refused_with_a_reason() -> None:
    bases = {"BaseSampler", "BaseGASampler"}
    all_of = {name for name in optuna.samplers.__all__ if name.endswith("Sampler")} - bases
    assert all_of == {*search_methods.OPTUNA, *search_methods.OTHERS}
    for name, why in search_methods.OTHERS.items():
        with pytest.raises(BadInput, match=f"--search {name} can't be done here: {why[:10]}"):
            search_methods.check_searcher(name)


@pytest.mark.parametrize("search", ["tpe", "gp", "GPSampler", "TPESampler"])
def test_a_model_finds_the_good_learning_rates(begin: Begin, search: str) -> None:
    given = replace(rules(space=SPACE, trials=32, allocate="equal"), search=search)
    scheduler = play_all(begin(given=given))
    late = drawn(scheduler)[-12:]
    assert sum(10**-3.25 < spec.lr < 10**-1.75 for spec in late) >= 7
    assert abs(math.log10(scheduler.best()["plain"].spec.lr) + 2.5) < 0.4


@pytest.mark.parametrize("search", ALL)
def test_stopped_and_failed_and_diverged_trials_are_told(begin: Begin, search: str) -> None:
    """Whatever becomes of trials, there is a next one."""
    given = replace(rules(space=SPACE, trials=24, allocate="equal"), search=search)
    scheduler = begin(given=given)
    ends = [Outcome.DIVERGED, Outcome.FAILED, Outcome.PRUNED, None, Outcome.OUT_OF_MEMORY, None]
    number = 0
    while not scheduler.done and number < 24:
        waiting = [scheduler.next(), scheduler.next()]
        for spec in waiting:
            assert spec is not None
            end = ends[number % len(ends)]
            number += 1
            if end is None:
                play(scheduler, spec)
                continue
            if end is Outcome.PRUNED:
                scheduler.reported(spec.id, rung(spec, spec.stops[0]))
            scheduler.ended(spec.id, TrialEnd(outcome=end))
    assert len(drawn(scheduler)) == 24


@pytest.mark.parametrize("search", ALL)
def test_with_several_objectives_points_are_drawn(begin: Begin, search: str) -> None:
    given = rules(space=SPACE, trials=14, allocate="equal", objectives=("seconds",))
    scheduler = begin(given=replace(given, search=search))
    while len(drawn(scheduler)) < 14:
        spec = scheduler.next()
        assert spec is not None
        for stop in spec.stops:
            reported = replace(rung(spec, stop), costs={"seconds": spec.lr})
            scheduler.reported(spec.id, reported)
        end = TrialEnd(outcome=Outcome.COMPLETE, costs={"seconds": spec.lr})
        scheduler.ended(spec.id, end)


def test_a_misspelt_name_is_told_the_closest() -> None:
    with pytest.raises(BadInput, match="value of --search 'tpee'; did you mean 'tpe'"):
        search_methods.check_searcher("tpee")
    with pytest.raises(BadInput, match="value of --stop 'hyperbnd'; did you mean 'hyperband'"):
        search_methods.check_stopper("hyperbnd")


def test_cmaes_begins_anew_once_its_first_trials_are_forgotten(begin: Begin) -> None:
    space = replace(SPACE, arms={"plain": SPACE.arms["plain"]})
    given = replace(rules(space=space, trials=LATEST + 40), search="cmaes", stop="none")
    rates = [math.log10(spec.lr) for spec in drawn(play_all(begin(given=given), most=LATEST + 20))]
    before, after = rates[LATEST - 20 : LATEST], rates[LATEST : LATEST + 20]
    assert max(before) - min(before) < 0.1 < 0.5 < max(after) - min(after)
    assert abs(sum(after) / len(after) + 2.5) < 0.5, "around the best"
