"""Lists of studies: every state that a study can be in, in a folder."""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from study.analysis import results_file
from study.analysis.result_types import StudyResults
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.study_json import open_study
from study.inventory.overview import State, StudyOverview, overviews
from study.inventory.tables import show_list
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage import study_files
from study.storage.journal_reader import Session
from study.storage.study_folder import StudyFolder, this_driver
from tests.study.made_up import play_all
from trainables.errors import BadInput

SESSION = Session(began=0.0, seconds=0.0, devices=2, concurrency=2, host="somewhere")


def begun(storage: Path, name: str, **settings: Any) -> StudyFolder:
    """A study that has begun and has no trial yet."""
    asked = Settings(**({"space": "smoke"} | settings))
    definition = StudyDefinition.parse(asked)
    folder = StudyFolder(storage=storage, name=name)
    open_study(folder, definition, run=definition.space.arms, base={})
    return folder


def by_name(storage: Path) -> dict[str, StudyOverview]:
    return {each.study: each for each in overviews(str(storage))}


def test_every_state_has_its_line(
    begin: Callable[..., StudyScheduler], tmp_path: Path, found: StudyResults
) -> None:
    begun(tmp_path, "new")
    begun(tmp_path, "half")
    scheduler = play_all(begin(folder="half"), most=3)
    scheduler.journal.record_session(SESSION)
    begun(tmp_path, "timed", allowance="2h")
    done = begun(tmp_path, "done")
    results_file.write(done.path, replace(found, study="done"))
    later = begun(tmp_path, "later")
    later.settings.write_text(json.dumps({"version": 9}))
    torn = begun(tmp_path, "torn")
    (torn.path / "optuna.journal").write_text("no JSON\n")
    deep = begun(tmp_path, "deep")
    (deep.path / "optuna.journal").write_text("[" * 200_000 + "\n")
    pipe = begun(tmp_path, "pipe")
    os.mkfifo(pipe.path / "optuna.journal")
    (tmp_path / "made" / "checkpoints" / "x").mkdir(parents=True)
    (tmp_path / "made" / "study.log").write_text("1234")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("no study's")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mlflow-artifacts").mkdir()
    (tmp_path / "mlflow-artifacts" / "x").touch()
    rows = by_name(tmp_path)
    assert {name: row.state for name, row in rows.items()} == {
        "new": State.INTERRUPTED,
        "half": State.INTERRUPTED,
        "timed": State.INTERRUPTED,
        "done": State.FINISHED,
        "later": State.UNREADABLE,
        "torn": State.UNREADABLE,
        "deep": State.UNREADABLE,
        "pipe": State.UNREADABLE,
        "made": State.HALF_MADE,
    }
    assert (rows["new"].trials, rows["new"].trials_in_all) == (0, 4 + 1 + 6)
    assert (rows["half"].trials, rows["half"].host) == (3, ""), "only while it runs"
    assert rows["timed"].trials_in_all is None, "time limits them"
    assert rows["done"].trials == len(found.trials)
    assert rows["done"].verdict == " ".join(found.verdict.split())
    assert rows["done"].begun == found.protocol["begun"]
    assert "version 9" in rows["later"].verdict and "damaged" in rows["torn"].verdict
    assert rows["pipe"].verdict.endswith("pipe/optuna.journal: it is no regular file")
    assert rows["made"].bytes == 4 and rows["made"].where == str(tmp_path / "made")
    with StudyFolder.from_path(tmp_path / "half").only_driver():
        running = by_name(tmp_path)["half"]
    assert (running.state, running.host) == (State.RUNNING, socket.gethostname())
    assert by_name(tmp_path)["half"].state is State.INTERRUPTED


def test_looking_writes_nothing_and_stops_no_driver(tmp_path: Path) -> None:
    folder = begun(tmp_path, "one")
    before = sorted(path.name for path in folder.path.iterdir())
    assert folder.driver is None
    overviews(str(tmp_path))
    assert sorted(path.name for path in folder.path.iterdir()) == before, "nor a lock"
    with folder.only_driver():
        assert folder.driver == this_driver()
        with (
            pytest.raises(BadInput, match="'one' is running already; stop it"),
            folder.only_driver("stop it"),
        ):
            pass
    assert folder.driver is None


def test_where_a_study_was_recorded_is_told(tmp_path: Path, found: StudyResults) -> None:
    begun(tmp_path, "half")
    journal = StudyJournal(tmp_path / "half")
    for address in ("http://first", "http://second"):
        journal.record_mlflow(address)
    done = begun(tmp_path, "done")
    results_file.write(done.path, replace(found, study="done", mlflow="http://second"))
    begun(tmp_path, "here")
    StudyJournal(tmp_path / "here").record_mlflow("")
    rows = overviews(str(tmp_path))
    assert {row.study: row.mlflow for row in rows} == {
        "half": "http://second",
        "done": "http://second",
        "here": "",
    }
    out = StringIO()
    show_list(Console(file=out, width=140), "studies", rows)
    assert out.getvalue().splitlines()[-1] == "2 recorded in MLflow at http://second"


def test_links_are_looked_at_and_those_that_lead_nowhere_passed_over(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    begun(tmp_path / "other", "one")
    storage = tmp_path / "studies"
    storage.mkdir()
    (storage / "link").symlink_to(tmp_path / "other" / "one")
    (storage / "loop").symlink_to("loop")
    (storage / "nowhere").symlink_to("nothing")
    (row,) = overviews(str(storage))
    assert (row.study, row.state) == ("link", State.INTERRUPTED)
    assert row.where == str(tmp_path / "other" / "one")


def test_a_study_that_is_not_there_is_named(tmp_path: Path) -> None:
    begun(tmp_path, "smoke-phantom-001")
    with pytest.raises(BadInput, match="unknown study 'smoke-phantom-01'; did you mean"):
        study_files.one(str(tmp_path), "smoke-phantom-01")
    for name in ("../outside", "mlflow.db", "mlflow-artifacts", ""):
        with pytest.raises(BadInput, match="unknown study"):
            study_files.one(str(tmp_path), name)
    with pytest.raises(BadInput, match="there is no folder"):
        overviews(str(tmp_path / "nowhere"))


def test_a_long_verdict_takes_no_room_from_the_others() -> None:
    name = "a-study-with-quite-a-long-name"
    row = StudyOverview(
        study=name, state=State.FINISHED, trials=31, verdict="word " * 99, bytes=2**20, where="x"
    )
    for width in (80, 140):
        out = StringIO()
        show_list(Console(file=out, width=width), "studies", [row])
        _, line, _, last = out.getvalue().splitlines()
        assert name in line and "finished" in line and "1.0 MiB" in line
        assert line.rstrip().endswith("\u2026") and len(line) == width
        assert last == "1 study in studies, 1.0 MiB"
