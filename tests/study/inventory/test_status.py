"""The status of one study: what its journal says, while it runs and after."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from study.inventory.overview import State
from study.inventory.status import StudyStatus, status
from study.inventory.tables import plain_status, status_view
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage import study_files
from study.trials.record import Outcome
from tests.study.inventory.test_overview import SESSION, begun
from tests.study.made_up import play_all, rules, rung
from trainables.errors import BadInput


def look(storage: Path) -> StudyStatus:
    return status(study_files.one(str(storage), "study"))


def shown(found: StudyStatus) -> str:
    out = StringIO()
    Console(file=out, width=140).print(status_view(found))
    return out.getvalue()


def test_a_study_that_runs(begin: Callable[..., StudyScheduler], tmp_path: Path) -> None:
    folder = begun(tmp_path, "study", trials=12, max_examples=960)
    scheduler = begin()
    scheduler.journal.record_session(replace(SESSION, began=time.time() - 100, seconds=50))
    play_all(scheduler, most=5)
    spec = scheduler.next()
    assert spec is not None
    scheduler.record_placement(spec.id, {"lane": "solo", "devices": "1", "engine": "plain"})
    scheduler.reported(spec.id, rung(spec, spec.stops[0]))
    with folder.only_driver():
        found = look(tmp_path)
    assert found.overview.state is State.RUNNING
    assert (found.searched, found.search_trials) == (5, 12)
    assert (found.confirmed, found.confirmations) == (0, 1 + 2 * 3)
    assert found.seconds == pytest.approx(150, abs=5)
    assert sum(sum(arm.ended.values()) for arm in found.arms) == 5
    assert [record.spec.id for record in found.running] == [spec.id]
    best = scheduler.best()
    assert {a.arm: a.best and a.best.spec.id for a in found.arms} == {
        arm: best[arm].spec.id for arm in ("layernorm", "lora")
    }
    spent = sum(record.seconds for record in scheduler.journal.records.values())
    assert found.device_seconds == spent
    assert found.use == pytest.approx(spent / 200, rel=0.1)
    assert found.seconds_left is not None and found.seconds_left > 0
    text = shown(found)
    for part in ("running on somewhere", "search 5/12", "2 of somewhere", "solo, 1 device, plain"):
        assert part in text
    assert json.loads(json.dumps(plain_status(found)))["running"][0]["trial"] == spec.id


def test_a_study_that_was_interrupted(begin: Callable[..., StudyScheduler], tmp_path: Path) -> None:
    begun(tmp_path, "study")
    scheduler = play_all(begin(), most=2)
    scheduler.next()
    found = look(tmp_path)
    assert found.use is None and found.seconds_left is None
    assert found.seconds == scheduler.journal.seconds
    text = shown(found)
    assert "1 to go on" in text and "--resume study goes on with it" in text


def test_rungs_count_who_reached_them(begin: Callable[..., StudyScheduler], tmp_path: Path) -> None:
    begun(tmp_path, "study", max_examples=960, trials=12)
    scheduler = begin(given=replace(rules(), budget=replace(rules().budget, rungs=1)))
    play_all(scheduler)
    arms = look(tmp_path).arms
    assert all(list(arm.reached) == [320, 960] for arm in arms)
    for arm in arms:
        assert arm.reached[320] == sum(arm.ended.values())
        assert arm.reached[960] == arm.ended[Outcome.COMPLETE]


@pytest.mark.parametrize(
    ("allowance", "left"), [("200s", "of 3:20, 2:2"), ("1gpu-h", "of 1, 1 left")]
)
def test_a_limit_says_what_is_left(tmp_path: Path, allowance: str, left: str) -> None:
    folder = begun(tmp_path, "study", allowance=allowance)
    StudyJournal(tmp_path / "study").record_session(replace(SESSION, began=time.time() - 50))
    with folder.only_driver():
        assert left in shown(look(tmp_path))


def test_a_half_made_study_says_how_to_remove_it(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.log").touch()
    with pytest.raises(BadInput, match=r"study\.delete study removes it"):
        look(tmp_path)
