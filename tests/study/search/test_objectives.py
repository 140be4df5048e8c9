"""A search for a trade-off: what it keeps, whom it stops, and where it goes."""

import math
import time
from pathlib import Path

import pytest

from search_spaces.declare import Arm, Choice, LogUniform, Space, method
from study.config import goals
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.search.stoppers.asha import Stopper
from study.trials.record import Outcome, Rung, TrialEnd
from study.trials.spec import Kind, TrialSpec
from tests.study.made_up import rules

MEMORY = ("peak_memory_gib",)
SPACE = Space(
    question="?",
    arms={
        "lora": Arm(
            everywhere=method("lora", rank=Choice(1, 2, 4, 8, 16, 32)), lr=LogUniform(1e-5, 1e-1)
        )
    },
)


def live(scheduler: StudyScheduler, spec: TrialSpec) -> None:
    """A trial whose loss is the lower, the more memory it takes; best at a rate of 1e-3."""
    rank = spec.parameters.get("lora.rank", 1)
    costs = {"peak_memory_gib": 1.0 + rank / 4, "seconds": 1.0}
    for stop in spec.stops:
        loss = (math.log10(spec.lr) + 3) ** 2 + 4 / rank + 100 / stop
        rung = Rung(
            examples_seen=stop,
            validation_loss=loss,
            train_loss=1.0,
            seconds=1.0,
            reported_at=time.time(),
            costs=costs,
        )
        if not scheduler.reported(spec.id, rung) and stop < spec.stops[-1]:
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.PRUNED, costs=costs))
            return
    scheduler.ended(spec.id, TrialEnd(outcome=Outcome.COMPLETE, costs=costs))


def run(
    folder: Path, costs: tuple[str, ...], *, trials: int = 60, most: int = 999
) -> StudyScheduler:
    folder.mkdir(exist_ok=True)
    given = rules(space=SPACE, trials=trials, objectives=costs)
    scheduler = StudyScheduler(given, StudyJournal(folder, costs))
    for _ in range(most):
        spec = scheduler.next()
        if spec is None:
            break
        live(scheduler, spec)
    return scheduler


def test_a_search_for_a_trade_off_finds_more_of_it(tmp_path: Path) -> None:
    """Every rank is a point of the true front: more memory, less loss."""
    both = run(tmp_path / "both", MEMORY)
    alone = run(tmp_path / "alone", ())
    near = [
        {
            r.spec.parameters["lora.rank"]
            for r in scheduler.journal.of_kind(Kind.SEARCH)
            if r.outcome is Outcome.COMPLETE and abs(math.log10(r.spec.lr) + 3) < 0.5
        }
        for scheduler in (both, alone)
    ]
    assert len(near[0]) >= 4 > len(near[1])
    front = goals.pareto_front(both.journal.records.values(), MEMORY)
    losses = [record.loss for record in front]
    memory = [record.costs["peak_memory_gib"] for record in front]
    assert losses == sorted(losses) and memory == sorted(memory, reverse=True)
    assert len(front) >= 4


def test_optuna_has_both_values_of_every_whole_trial(tmp_path: Path) -> None:
    journal = run(tmp_path / "one", MEMORY, trials=20).journal
    told = journal.studies["search"].get_trials()
    for record in journal.of_kind(Kind.SEARCH):
        whole = record.outcome is Outcome.COMPLETE
        values = [record.loss, record.costs["peak_memory_gib"]] if whole else None
        assert told[record.number].values == values
    assert any(r.outcome is Outcome.PRUNED for r in journal.of_kind(Kind.SEARCH))


def test_what_is_confirmed_is_the_lowest_loss(tmp_path: Path) -> None:
    scheduler = run(tmp_path / "one", MEMORY, trials=20)
    best = scheduler.best()["lora"]
    searched = scheduler.journal.of_kind(Kind.SEARCH)
    assert best.loss == min(r.loss for r in searched if r.outcome is Outcome.COMPLETE)
    confirmed = scheduler.journal.of_kind(Kind.CONFIRM)
    assert {r.spec.parameters["lora.rank"] for r in confirmed} == {
        best.spec.parameters["lora.rank"]
    }


@pytest.mark.parametrize("killed_after", [1, 12, 18])
def test_a_killed_search_goes_on_to_the_same_end(tmp_path: Path, killed_after: int) -> None:
    whole = run(tmp_path / "whole", MEMORY, trials=20)
    run(tmp_path / "killed", MEMORY, trials=20, most=killed_after)
    again = run(tmp_path / "killed", MEMORY, trials=20)
    assert list(again.journal.records) == list(whole.journal.records)


def test_whoever_costs_less_goes_on() -> None:
    rungs = Stopper(reduction=3)
    for number in range(6):
        rungs.record("lora", str(number), 64, 1.0 + number / 10, (4.0,))
    assert not rungs.record("lora", "as dear", 64, 2.0, (4.0,))
    assert not rungs.record("lora", "as dear but for the measurement", 64, 2.0, (3.95,))
    assert rungs.record("lora", "cheap", 64, 2.0, (1.0,))
    assert not rungs.record("lora", "cheap and worse", 64, 2.1, (1.0,))
