"""Whole studies through the command line: real Ray, Optuna, model, data and MLflow."""

import html
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from study import answers, export, predict
from study.ui import default_uri
from tests.trainables import made_llava
from tests.trainables.data.small import iu_xray, jsonl
from trainables.data import phantom
from trainables.data.scores import PARTS

pytestmark = pytest.mark.long
RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
REPOSITORY = Path(__file__).parents[2]
VQA_RAD = REPOSITORY.parent / "shared" / "data" / "vqa_rad"


def command(storage: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "study.launch", "--storage", str(storage), *arguments]


def launch(storage: Path, *arguments: str) -> str:
    done = subprocess.run(
        command(storage, *arguments),
        check=False,
        capture_output=True,
        text=True,
        timeout=420,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def results(storage: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((storage / name / "results.json").read_text())
    return found


def numbers(found: dict[str, Any]) -> list[Any]:
    """What two runs of one study must have in common: all but times and memory."""
    return [
        (
            t["trial"],
            t["arm"],
            t["parameters"],
            t["outcome"],
            [(r["examples_seen"], r["validation_loss"], r["train_loss"]) for r in t["rungs"]],
            t["scores"],
        )
        for t in found["trials"]
    ]


def runs(storage: Path, experiment: str) -> list[Run]:
    client = MlflowClient(default_uri(storage))
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], max_results=1000))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A smoke study that was run to its end, one trial at a time, and what it printed."""
    storage = tmp_path_factory.mktemp("studies")
    yield storage, launch(storage, "--space", "smoke", "--name", "one", "--concurrency", "1")


def test_the_answer_is_shown_and_kept(smoke: tuple[Path, str]) -> None:
    storage, shown = smoke
    found = results(storage, "one")
    assert found["version"] == 1
    assert found["verdict"] in " ".join(shown.split())
    assert "python -m study.ui" in shown
    kinds = [t["kind"] for t in found["trials"]]
    assert kinds == ["search"] * 4 + ["untuned"] + ["confirm"] * 6
    assert {a["arm"] for a in found["arms"]} == {"layernorm", "lora"}
    for arm in found["arms"]:
        test = arm["test"]["overall"]
        assert 0 <= test["low"] <= test["mean"] <= test["high"] <= 100
        assert [s["seed"] for s in arm["seeds"]] == [1, 2, 3]
        assert arm["costs"]["trained_parameters"] > 0
        assert arm["costs"]["seconds"] > 0 and arm["costs"]["peak_memory_gib"] > 0
    for name in ("majority", "untuned"):
        scored = found["baselines"][name]
        assert set(scored) == {*PARTS, "token_recall", "token_f1"}
        assert scored.pop("report") is None  # there is none in the data
        assert all(0 <= value <= 100 for value in scored.values())
    page = html.unescape((storage / "one" / "report.html").read_text())
    assert found["verdict"] in page and "http" not in page.split("<body>")[0]


def test_mlflow_has_every_trial_as_the_results_have_it(smoke: tuple[Path, str]) -> None:
    storage, _ = smoke
    found = {t["trial"]: t for t in results(storage, "one")["trials"]}
    recorded = runs(storage, "smoke")
    (parent,) = [run for run in recorded if run.data.tags["kind"] == "study"]
    assert parent.info.status == "FINISHED"
    assert {"commit", "versions.torch", "command"} <= set(parent.data.tags)
    children = {r.data.tags["trial"]: r for r in recorded if r.info.run_id != parent.info.run_id}
    assert set(children) == set(found)
    client = MlflowClient(default_uri(storage))
    for trial, run in children.items():
        expected = found[trial]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["outcome"] == expected["outcome"]
        for name, value in expected["parameters"].items():
            assert run.data.params[name] == str(value)
        history = client.get_metric_history(run.info.run_id, "validation_loss")
        assert [(m.step, m.value) for m in history] == [
            (r["examples_seen"], r["validation_loss"]) for r in expected["rungs"]
        ]
        scores = {part: v for part, v in expected["scores"].items() if v is not None}
        assert {part: run.data.metrics[f"{part}_percent"] for part in scores} == scores
        assert all(part.endswith(".report") for part in set(expected["scores"]) - set(scores))
    assert {"results.json", "report.html"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }


def test_the_winner_answers_as_it_did_in_the_study(
    smoke: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, _ = smoke
    found = results(storage, "one")
    trials = {t["trial"]: t for t in found["trials"]}
    confirmed = [trials[s["trial"]] for s in found["arms"][0]["seeds"]]
    best = min(confirmed, key=lambda trial: trial["rungs"][-1]["validation_loss"])
    assert export.main(["one", "--storage", str(storage), "--out", str(tmp_path / "out")]) == 0
    assert found["verdict"] in (tmp_path / "out" / "README.md").read_text()
    kept = answers.read(storage / "one", best["trial"], "test").to_pylist()
    for example, row in list(zip(phantom.load(None).test, kept, strict=True))[:5]:
        capsys.readouterr()
        asked = ["--image", str(example.image), "--question", example.question]
        assert predict.main([str(tmp_path / "out"), *asked]) == 0
        assert capsys.readouterr().out == row["answer"] + "\n"


def test_only_confirmed_trials_keep_what_they_trained(smoke: tuple[Path, str]) -> None:
    storage, _ = smoke
    found = results(storage, "one")
    kept = {path.parents[1].name for path in (storage / "one").rglob("trained.safetensors")}
    assert kept == {t["trial"] for t in found["trials"] if t["kind"] == "confirm"}


def test_the_same_seed_gives_the_same_trials_and_numbers(smoke: tuple[Path, str]) -> None:
    storage, _ = smoke
    launch(storage, "--space", "smoke", "--name", "two", "--concurrency", "1")
    assert numbers(results(storage, "two")) == numbers(results(storage, "one"))


def test_resuming_a_finished_study_changes_nothing(smoke: tuple[Path, str]) -> None:
    storage, _ = smoke
    before = results(storage, "one")
    recorded = len(runs(storage, "smoke"))
    launch(storage, "--resume", "one")
    assert results(storage, "one") == before
    assert len(runs(storage, "smoke")) == recorded


def test_a_killed_driver_goes_on_where_it_was(smoke: tuple[Path, str]) -> None:
    storage, _ = smoke
    arguments = ("--space", "smoke", "--name", "killed", "--concurrency", "1")
    with subprocess.Popen(
        command(storage, *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=REPOSITORY,
    ) as driver:
        log, give_up = storage / "killed" / "study.log", time.monotonic() + 240
        # Killed after the second trial's first rung: one trial ended, one in the middle.
        while not (log.exists() and log.read_text().count(" rung ") >= 3):
            assert driver.poll() is None and time.monotonic() < give_up
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
    assert not (storage / "killed" / "results.json").exists()
    launch(storage, *arguments)  # the same command again
    assert numbers(results(storage, "killed")) == numbers(results(storage, "one"))
    trials = [r.data.tags["trial"] for r in runs(storage, "smoke") if _of(r, storage, "killed")]
    assert len(trials) == len(set(trials)) == 11


def test_a_study_with_zero_2_gives_the_plain_studys_losses(smoke: tuple[Path, str]) -> None:
    storage, _ = smoke
    common = ("--space", "smoke", "--trials", "2", "--seeds", "1", "--precision", "fp32")
    launch(storage, *common, "--name", "plain", "--concurrency", "1")
    launch(storage, *common, "--name", "zero", "--concurrency", "1", "--deepspeed", "2")
    plain, zero = results(storage, "plain")["trials"], results(storage, "zero")["trials"]
    for one, other in zip(plain, zero, strict=True):
        assert one["parameters"] == other["parameters"]
        assert other["outcome"] == "complete"
        losses = [r["validation_loss"] for r in one["rungs"]]
        assert [r["validation_loss"] for r in other["rungs"]] == pytest.approx(losses, rel=1e-3)


@pytest.mark.skipif(not VQA_RAD.is_dir(), reason="VQA-RAD is not beside this repository")
def test_a_study_on_real_questions(tmp_path: Path) -> None:
    budget = ("--trials", "2", "--max-examples", "64", "--seeds", "1")
    data = ("--data", "vqa_rad", "--data-root", str(VQA_RAD))
    launch(tmp_path, "--space", "layernorm_vs_lora", *data, *budget, "--name", "real")
    found = results(tmp_path, "real")
    assert found["protocol"]["data"]["questions"]["test"] == 451
    assert all(t["outcome"] == "complete" for t in found["trials"])


def test_winners_are_scored_on_data_they_never_trained_on(tmp_path: Path) -> None:
    (tmp_path / "data" / "jsonl").mkdir(parents=True)
    jsonl.write(tmp_path / "data" / "jsonl")
    budget = ("--trials", "2", "--max-examples", "64", "--seeds", "2")
    data = ("--ood", "jsonl", "--data-root", str(tmp_path / "data"), "--split", "by_image")
    shown = launch(tmp_path, "--space", "smoke", *data, *budget, "--name", "elsewhere")
    assert "On jsonl, never trained on: " in shown
    (elsewhere,) = results(tmp_path, "elsewhere")["ood"]
    assert elsewhere["data"] == "jsonl"
    assert {arm["arm"] for arm in elsewhere["arms"]} == {"layernorm", "lora"}
    for arm in elsewhere["arms"]:
        assert 0 <= arm["test"]["overall"]["low"] <= arm["test"]["overall"]["high"] <= 100
    for trial in results(tmp_path, "elsewhere")["trials"]:
        assert ("ood.jsonl.overall" in trial["scores"]) == (trial["kind"] != "search")


def test_a_whole_study_with_a_llava(tmp_path: Path) -> None:
    """As the large ones are run: its base in the bf16 of its checkpoint."""
    settings: dict[str, Any] = {"dtype": torch.bfloat16, "mm_projector_type": "linear"}
    model = made_llava.write(tmp_path / "model", "mistral", **settings)
    budget = ("--trials", "2", "--max-examples", "64", "--seeds", "1", "--precision", "bf16")
    shown = launch(tmp_path, "--space", "smoke", "--model", str(model), *budget, "--name", "llava")
    assert "connector frozen (no norm)" in " ".join(shown.split())
    found = results(tmp_path, "llava")
    assert [t["outcome"] for t in found["trials"]] == ["complete"] * 5
    last = [t["rungs"][-1]["validation_loss"] for t in found["trials"] if t["rungs"]]
    assert len(set(last)) == 4 and all(map(math.isfinite, last))


@pytest.mark.parametrize("family", ["blip", "llava"])
def test_a_study_of_reports(family: str, tmp_path: Path) -> None:
    """Tables show what reports are scored by; BLIP's writes them with two beams."""
    (tmp_path / "data").mkdir()
    iu_xray.write(tmp_path / "data")
    model = {"blip": "tiny", "llava": str(tmp_path / "model")}[family]
    if family == "llava":
        made_llava.write(tmp_path / "model")
    data = ("--data", "iu_xray", "--data-root", str(tmp_path / "data"), "--allow-leak")
    budget = ("--trials", "2", "--max-examples", "64", "--seeds", "1")
    beams = ("--beams", "2", "--label-smoothing", "0.1") if family == "blip" else ()
    asked = ("--space", "smoke", "--model", model, *data, *budget, *beams)
    shown = launch(tmp_path, *asked, "--name", "r")
    found = results(tmp_path, "r")
    assert "ROUGE-L %" in shown and "BLEU-4 %" in shown and "closed %" not in shown
    assert all(t["outcome"] == "complete" for t in found["trials"])
    assert found["protocol"]["answer_tokens"] > 10
    assert found["baselines"]["majority"]["report"] == pytest.approx(100)  # all are the same here
    for arm in found["arms"]:
        assert arm["test"]["overall"] == arm["test"]["report"]
        assert arm["test"]["open"]["mean"] is None and arm["test"]["cider"]["mean"] >= 0
        assert arm["test"]["report"]["mean"] == pytest.approx(arm["seeds"][0]["rouge_l"])
        if family == "blip":
            assert arm["test"]["report"]["mean"] > 5
    assert "CIDEr %" in (tmp_path / "r" / "report.html").read_text()


def test_a_study_on_a_cluster_that_was_there_before(
    smoke: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, _ = smoke
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    session = Path(tempfile.mkdtemp(prefix="ray-"))  # short: it holds sockets
    head = [*RAY, "start", "--head", f"--port={port}", "--num-cpus=2", f"--temp-dir={session}"]
    with subprocess.Popen(
        [*head, "--include-dashboard=false", "--block"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as cluster:
        try:
            answers_at(port)
            address = ("--address", f"127.0.0.1:{port}", "--concurrency", "1")
            launch(storage, "--space", "smoke", "--name", "joined", *address)
        finally:
            os.killpg(cluster.pid, signal.SIGKILL)
    shutil.rmtree(session)
    assert numbers(results(storage, "joined")) == numbers(results(storage, "one"))


def answers_at(port: int) -> None:
    """Wait until something listens there."""
    give_up = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < give_up
            time.sleep(0.2)


def _of(run: Run, storage: Path, study: str) -> bool:
    parent = run.data.tags.get("mlflow.parentRunId")
    if parent is None:
        return False
    client = MlflowClient(default_uri(storage))
    return bool(client.get_run(parent).data.tags["study"] == study)
