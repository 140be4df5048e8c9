"""The status of one study: what its journal says, while it runs and after."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from study.config import spaces
from study.inventory.overview import State
from study.inventory.status import StudyStatus, status
from study.inventory.tables import plain_status, status_view
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage import study_files
from study.storage.study_folder import SETTINGS, this_driver
from study.tracking.mlflow_store import default_uri, noted
from study.trials.colours import terminal_styles
from study.trials.record import Outcome, TrialEnd
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
    for part in (
        f"running on {socket.gethostname()}",
        "search 5/12",
        "2 of somewhere",
        "solo, 1 device, plain",
    ):
        assert part in text
    assert json.loads(json.dumps(plain_status(found)))["running"][0]["trial"] == spec.id


def test_an_arm_that_diverged_in_the_search_will_have_more_confirmations(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    begun(tmp_path, "study", trials=12, max_examples=960)
    scheduler = begin()
    for diverges in (False, True):
        spec = next(s for s in iter(scheduler.next, None) if s.arm == "lora")
        scheduler.reported(spec.id, rung(spec, spec.stops[0]))
        if diverges:
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.DIVERGED, error="nan"))
    best, lr = scheduler.best()["lora"].spec.lr, spec.lr
    assert look(tmp_path).confirmations == 1 + (3 if lr > best else 6) + 3
    file = tmp_path / "study" / SETTINGS
    older = {n: v for n, v in json.loads(file.read_text()).items() if not n.startswith("times_if")}
    file.write_text(json.dumps(older))
    assert look(tmp_path).confirmations == 1 + 3 + 3, "it goes on as it began"


def test_a_study_that_was_interrupted(begin: Callable[..., StudyScheduler], tmp_path: Path) -> None:
    begun(tmp_path, "study")
    assert "no driver runs it, and it has begun no trial" in shown(look(tmp_path))
    scheduler = play_all(begin(), most=2)
    scheduler.journal.record_session(replace(SESSION, began=time.time(), driver="somewhere 1"))
    scheduler.next()
    found = look(tmp_path)
    assert found.overview.state is State.INTERRUPTED and not found.starting
    assert found.use is None and found.seconds_left is None
    assert found.seconds == scheduler.journal.seconds
    text = shown(found)
    assert "1 to go on" in text
    assert "no driver runs it: the last one on somewhere was heard of until 20" in text
    assert f"--resume study --storage {tmp_path} goes on with it" in " ".join(text.split())


def test_a_driver_that_has_begun_no_trial_has_no_pace_of_an_earlier_session(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    folder = begun(tmp_path, "study")
    with folder.only_driver():
        found = look(tmp_path)
        assert found.overview.state is State.RUNNING and found.starting
        assert "a driver has taken the study and begun no trial so far" in shown(found)
    scheduler = play_all(begin(), most=2)
    scheduler.journal.record_seconds(60.0)
    an_hour_ago = replace(SESSION, began=time.time() - 3600, driver="somewhere 1")
    scheduler.journal.record_session(an_hour_ago)
    with folder.only_driver():
        found = look(tmp_path)
        assert found.overview.state is State.RUNNING and found.starting
        assert (found.seconds, found.use, found.seconds_left) == (60.0, None, None)
        scheduler.journal.record_session(replace(an_hour_ago, driver=this_driver()))
        found = look(tmp_path)
        assert not found.starting and found.seconds == pytest.approx(3600, abs=5)


def test_a_driver_that_is_killed_runs_the_study_no_longer(tmp_path: Path) -> None:
    folder = begun(tmp_path, "study")
    code = (
        "import sys, time; from study.storage.study_folder import StudyFolder\n"
        "with StudyFolder(storage=sys.argv[1], name='study').only_driver():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == b"held\n"
        assert folder.driver not in (None, "", this_driver())
        assert look(tmp_path).overview.host == socket.gethostname()
        driver.kill()
    assert look(tmp_path).overview.state is State.INTERRUPTED


def test_it_says_in_which_mlflow_stores_its_runs_are(tmp_path: Path) -> None:
    begun(tmp_path, "study")
    journal = StudyJournal(tmp_path / "study")
    assert look(tmp_path).mlflow == ()
    for uri in (default_uri(tmp_path), "http://me:secret@mlflow:5000/", default_uri(tmp_path)):
        journal.record_mlflow(noted(uri, tmp_path))
    found = look(tmp_path)
    assert found.mlflow == ("http://mlflow:5000", "")
    assert "MLflow   http://mlflow:5000, in the storage folder" in shown(found)


def test_an_arm_of_a_narrowed_study_has_the_colour_that_it_has_in_the_whole_space(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    begun(tmp_path, "study", space="intrinsic", arm="lora,full")
    whole = terminal_styles(spaces.load("intrinsic").declared)
    found = look(tmp_path)
    assert [*found.all_arms] == [*whole]
    out = StringIO()
    Console(file=out, width=140, force_terminal=True, color_system="truecolor").print(
        status_view(found)
    )
    for arm in ("lora", "full"):
        red, green, blue = (int(whole[arm][at : at + 2], 16) for at in (1, 3, 5))
        assert f"38;2;{red};{green};{blue}m{arm}" in out.getvalue()


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
    with pytest.raises(BadInput, match=r"study\.delete study --storage \S+ removes it"):
        look(tmp_path)
