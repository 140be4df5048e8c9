"""Studies that commit e565197 wrote are still resumed, reported, exported and asked.

``write.py`` made the archive. Its numbers were computed in fp32 on a processor with AVX-512; those
of another differ in the last digits, so losses are compared with a tolerance and everything else
exactly.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from study.storage import answers
from study.storage.study_folder import StudyFolder
from tests.study.command_line import REPOSITORY, launch, numbers, results, runs
from trainables.data import phantom
from trainables.measures.common.scores import VERSION as SCORING

pytestmark = pytest.mark.slow
ARCHIVE = Path(__file__).with_name("studies.tar.xz")
WRITTEN_AT = "/tmp/stored-studies"
"""Where the studies lay when they were written."""


def unpack(folder: Path) -> Path:
    """The archive's storage folder below ``folder``; MLflow looks for its files there."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, filter="data")
    storage = folder / "studies"
    with sqlite3.connect(storage / "mlflow.db") as database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (WRITTEN_AT, str(storage))
            )
    database.close()
    return storage


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The studies as they were written; tests only read them."""
    yield unpack(tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same, after each study was resumed."""
    storage = unpack(tmp_path_factory.mktemp("resumed"))
    for study in ("finished", "half", "objectives"):
        launch(storage, "--resume", study, "--concurrency", "1")
    yield storage


def rounded(value: Any) -> Any:
    """A value of JSON with numbers of 12 digits: the last ones differ between processors."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def known_to(older: Any, value: Any) -> Any:
    """A value without the keys that an older one lacks: later versions measure more."""
    if isinstance(value, dict) and isinstance(older, dict):
        return {name: known_to(older[name], held) for name, held in value.items() if name in older}
    if isinstance(value, list) and isinstance(older, list):
        return [known_to(o, v) for o, v in zip(older, value, strict=True)]
    return value


@pytest.mark.parametrize("study", ["finished", "objectives"])
def test_resuming_a_finished_study_changes_no_result(
    study: str, written: Path, resumed: Path
) -> None:
    before, after = results(written, study), results(resumed, study)
    was, now = before.pop("protocol"), after.pop("protocol")
    # Which version the file is of, and by which rules answers were scored, is younger than it.
    assert (before.pop("version"), after.pop("version")) == (1, 2)
    assert after.pop("scoring") == SCORING
    for trial in after["trials"]:  # younger too
        assert trial.pop("batch_size") == was["budget"]["batch_size"]
        assert trial.pop("training") == {}
    for arm in after["arms"]:
        arm.pop("may_gain")
        assert arm.pop("number") is not None
    assert after.pop("mlflow") == "", "its own, in the storage folder"
    # The verdict says more by now, and each caveat in a line of its own.
    now_said = " ".join(after.pop("verdict").split())
    assert now_said.startswith(before.pop("verdict").partition(" But ")[0])
    for found in (before, after):
        # Orders of trials are drawn without replacement since, and what is needed has its range.
        found["efficiency"].pop("budget")
        for part in (part for pair in found["comparisons"] for part in pair["parts"].values()):
            part["sentence"] = part["sentence"].partition(" To tell ")[0]
    assert rounded(known_to(before, after)) == rounded(before)
    # The rest of the protocol tells which code went on with the study.
    for name in ("settings", "budget", "begun", "identity", "precision", "model"):
        assert now[name] == was[name]


def test_a_study_that_was_killed_goes_on_to_the_numbers_of_one_that_was_not(
    written: Path, resumed: Path
) -> None:
    killed, whole = results(resumed, "half"), results(written, "finished")
    assert [_exact(t) for t in killed["trials"]] == [_exact(t) for t in whole["trials"]]
    for one, other in zip(killed["trials"], whole["trials"], strict=True):
        expected = [rung["validation_loss"] for rung in other["rungs"]]
        assert [r["validation_loss"] for r in one["rungs"]] == pytest.approx(expected, rel=1e-3)


def test_no_trial_is_run_again(written: Path, resumed: Path) -> None:
    """A trial that had ended does not start; one that was running starts once more."""
    before = (written / "half" / "study.log").read_text("utf-8")
    ended = {_trial(line) for line in before.splitlines() if line.split()[1] == "complete"}
    log = (resumed / "half" / "study.log").read_text("utf-8")
    starts = Counter(_trial(line) for line in log.splitlines() if line.split()[1] == "start")
    (running,) = {trial for trial, count in starts.items() if count == 2}
    assert ended and not ended & {running}
    assert all(count == 1 for trial, count in starts.items() if trial != running)
    assert log.startswith(before)
    assert len([line for line in log.splitlines() if running in line and " rung " in line]) == 2


def test_no_run_of_mlflow_is_made_twice(written: Path, resumed: Path) -> None:
    before, after = _by_study(written), _by_study(resumed)
    assert after.keys() == before.keys() == {"finished", "half", "objectives"}
    for study, children in after.items():
        trials = [run.data.tags["trial"] for run in children]
        assert sorted(trials) == sorted(t["trial"] for t in results(resumed, study)["trials"])
        assert {r.info.run_id for r in before[study]} <= {r.info.run_id for r in children}
        assert {r.info.status for r in children} <= {"FINISHED", "KILLED", "FAILED"}


@pytest.mark.parametrize("study", ["finished", "objectives"])
def test_a_report_is_written_anew(study: str, written: Path, tmp_path: Path) -> None:
    storage = tmp_path / "studies"
    shutil.copytree(written / study, storage / study)
    (storage / study / "report.html").unlink()
    _call("study.report", study, "--storage", str(storage))
    assert results(written, study)["verdict"] in (storage / study / "report.html").read_text(
        "utf-8"
    )


def test_a_winner_is_exported_as_it_was(written: Path, tmp_path: Path) -> None:
    where = ("--storage", str(written), "--out", str(tmp_path / "lora"))
    (tmp_path / "lora.partial").mkdir()  # somebody's own, and stays
    _call("study.export", "finished", "--arm", "lora", *where)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lora", "lora.partial"]
    before = written / "finished" / "export" / "lora"
    for name in ("trained.safetensors", "adapter_model.safetensors"):
        assert (tmp_path / "lora" / name).read_bytes() == (before / name).read_bytes()
    tuned = json.loads((before / "tuned.json").read_text("utf-8"))
    assert json.loads((tmp_path / "lora" / "tuned.json").read_text("utf-8")) == tuned


def test_an_export_answers_as_its_trial_did(written: Path) -> None:
    export = written / "finished" / "export" / "lora"
    lora = next(arm for arm in results(written, "finished")["arms"] if arm["arm"] == "lora")
    trials = {t["trial"]: t for t in results(written, "finished")["trials"]}
    best = min(
        (trials[seed["trial"]] for seed in lora["seeds"]),
        key=lambda trial: float(trial["rungs"][-1]["validation_loss"]),
    )
    kept = answers.read(
        StudyFolder(storage=written, name="finished"), best["trial"], "test"
    ).to_pylist()
    example, row = phantom.load(None).test[0], kept[0]
    asked = ("--image", str(example.image), "--question", example.question)
    assert _call("study.predict", str(export), *asked) == row["answer"] + "\n"


def _trial(line: str) -> str:
    """The trial that a line of ``study.log`` is about."""
    (trial,) = re.findall(r"\b[0-9a-f]{12}\b", line)
    return str(trial)


def _call(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _exact(trial: dict[str, Any]) -> list[Any]:
    """What no processor changes of a trial's numbers."""
    name, arm, parameters, outcome, rungs, _ = numbers({"trials": [trial]})[0]
    return [name, arm, parameters, outcome, [seen for seen, *_ in rungs]]


def _by_study(storage: Path) -> dict[str, list[Run]]:
    """Study -> the runs of its trials in MLflow; one parent each."""
    recorded = runs(storage, "smoke")
    parents = {
        r.info.run_id: r.data.tags["study"] for r in recorded if r.data.tags["kind"] == "study"
    }
    assert len(set(parents.values())) == len(parents)
    children: dict[str, list[Run]] = {study: [] for study in parents.values()}
    for run in recorded:
        if parent := run.data.tags.get("mlflow.parentRunId"):
            children[parents[parent]].append(run)
    return children
