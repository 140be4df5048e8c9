"""The best trial within the limits of ``--under`` is what is confirmed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from study.config.goals import Limit
from study.search.scheduler import StudyScheduler
from study.trials.record import Outcome, TrialEnd
from study.trials.spec import Kind
from tests.study.made_up import play, rules, rung

Begin = Callable[..., StudyScheduler]


def test_the_best_under_a_limit_is_confirmed_and_not_the_best_of_all(begin: Begin) -> None:
    """Here lower learning rates than 1e-3 need less memory; the best one is 3e-3."""

    def cost(lr: float) -> dict[str, float]:
        return {"seconds": 1.0, "peak_memory_gib": 1000 * lr}

    scheduler = begin(given=rules(trials=40, limits=(Limit(cost="peak_memory_gib", below=1.0),)))
    while not scheduler.done:
        spec = scheduler.next()
        assert spec is not None
        play(scheduler, spec, cost(spec.lr))
    rates = {r.spec.lr for r in scheduler.journal.of_kind(Kind.CONFIRM)}
    assert rates and max(rates) < 1e-3
    anyone = [r for r in scheduler.journal.of_kind(Kind.SEARCH) if r.rungs]
    assert min(anyone, key=lambda r: (-r.examples_seen, r.loss)).spec.lr > 1e-3


def test_an_arm_that_never_keeps_within_it_is_not_confirmed(begin: Begin) -> None:
    scheduler = begin(given=rules(limits=(Limit(cost="peak_memory_gib", below=1.0),)))
    while not scheduler.done:
        spec = scheduler.next()
        assert spec is not None
        play(scheduler, spec, {"peak_memory_gib": 2.0 if spec.arm == "lora" else 0.5})
    assert set(scheduler.best()) == {"layernorm"}


@pytest.mark.parametrize(("below", "arms"), [(5.0, set()), (10.0, {"layernorm", "lora"})])
def test_a_stopped_trial_takes_as_many_seconds_as_if_it_had_gone_on(
    begin: Begin, below: float, arms: set[str]
) -> None:
    """A whole trial takes 9.6 s, a stopped one less, and what is confirmed is whole."""
    scheduler = begin(given=rules(trials=16, limits=(Limit(cost="seconds", below=below),)))
    while not scheduler.done:
        spec = scheduler.next()
        assert spec is not None
        play(scheduler, spec, {})
    searched = scheduler.journal.of_kind(Kind.SEARCH)
    assert any(r.outcome is Outcome.PRUNED and r.costs["seconds"] < 5 for r in searched)
    assert set(scheduler.best()) == arms


@pytest.mark.parametrize("at_rung", [{}, {"peak_memory_gib": 12.0}])
def test_a_trial_that_was_lost_with_its_host_has_the_costs_of_its_last_rung(
    begin: Begin, at_rung: dict[str, float]
) -> None:
    scheduler = begin(given=rules(limits=(Limit(cost="peak_memory_gib", below=8.0),)))
    spec = scheduler.next()
    assert spec is not None
    scheduler.reported(spec.id, replace(rung(spec, spec.stops[0]), costs=at_rung))
    scheduler.ended(spec.id, TrialEnd(outcome=Outcome.FAILED, error="its host died: killed"))
    seconds = spec.stops[0] / 100
    assert scheduler.journal.records[spec.id].costs == {"seconds": seconds, **at_rung}
    assert not scheduler.best()
    assert not begin(given=scheduler.rules).best()
