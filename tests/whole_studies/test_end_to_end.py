"""Whole studies through the command line: real Ray, Optuna, model, data and MLflow."""

import hashlib
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from study import export, predict
from study.search.journal import StudyJournal
from study.storage import answers
from study.storage.study_folder import JOURNAL, StudyFolder
from study.tracking.mlflow_runs import six_digits
from study.tracking.mlflow_store import default_uri
from study.trials.record import Outcome
from study.trials.spec import Kind
from study.worker.host_config import HostConfig
from tests.small_disk import Disk, disk
from tests.study import small
from tests.study.command_line import REPOSITORY, command, launch, numbers, results, runs
from tests.trainables.cut_short import cut
from tests.trainables.data.small import jsonl
from tests.trainables.test_command import takes_signals
from trainables.data import phantom
from trainables.data.common.dataset import questions_digest
from trainables.measures.common.parts import PARTS
from trainables.training.regime import Regime
from trainables.workload import WorkloadConfig

pytestmark = pytest.mark.long
SMOKE = ("--space", "smoke", "--seeds", "2", "--concurrency", "1")
RUNS = 4 + 1 + 2 * 2
"""Trials of such a study: searched, untuned and confirmed."""


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A smoke study that was run to its end, one trial at a time, and what it printed."""
    storage = tmp_path_factory.mktemp("studies")
    yield storage, launch(storage, *SMOKE, "--name", "one")


def test_the_answer_is_shown_and_kept(smoke: tuple[Path, str]) -> None:
    storage, shown = smoke
    found = results(storage, "one")
    assert found["version"] == 2
    assert all(line in " ".join(shown.split()) for line in found["verdict"].splitlines())
    assert "python -m study.ui" in shown
    kinds = [t["kind"] for t in found["trials"]]
    assert kinds == ["search"] * 4 + ["untuned"] + ["confirm"] * 4
    assert {a["arm"] for a in found["arms"]} == {"layernorm", "lora"}
    for arm in found["arms"]:
        test = arm["test"]["overall"]
        assert 0 <= test["low"] <= test["mean"] <= test["high"] <= 100
        assert [s["seed"] for s in arm["seeds"]] == [1, 2]
        assert arm["costs"]["trained_parameters"] > 0
        assert arm["costs"]["seconds"] > 0 and arm["costs"]["peak_memory_gib"] > 0
    for name, by_likelihood in (("majority", set()), ("untuned", {"auroc", "ece"})):
        scored = found["baselines"][name]
        lenient = {"lenient_overall", "lenient_open", "lenient_closed"}
        measured = {"token_recall", "token_f1", "balanced_accuracy", "macro_f1", *lenient}
        assert set(scored) == {*PARTS, *measured, *by_likelihood}
        assert scored.pop("report") is None  # there is none in the data
        assert all(0 <= value <= 100 for value in scored.values())
    page = html.unescape((storage / "one" / "report.html").read_text())
    assert (
        all(line in page for line in found["verdict"].splitlines())
        and "://" not in page.split("<body>")[0]
    )


def test_it_did_what_its_protocol_planned_before_the_first_trial(smoke: tuple[Path, str]) -> None:
    storage, shown = smoke
    folder = storage / "one"
    planned = json.loads((folder / "protocol.json").read_text("utf-8"))
    digest = hashlib.sha256((folder / "protocol.json").read_bytes()).hexdigest()
    assert f"protocol {digest}" in shown and "protocol  as planned" in shown
    assert results(storage, "one")["protocol"]["protocol_sha256"] == digest
    assert (planned["seeds"], planned["margin"], planned["stops"]["trials"]) == (2, 1.0, 4)
    found = results(storage, "one")
    trial = found["arms"][0]["seeds"][0]["trial"]
    table = answers.read(StudyFolder.from_path(folder), trial, "test")
    assert planned["test"]["digest"] == questions_digest(answers.stored_examples(table)[0])
    assert planned["test"]["digest"] == questions_digest(phantom.load(None).test)
    first = min(t["rungs"][0]["reported_at"] for t in found["trials"] if t["rungs"])
    assert (folder / "protocol.json").stat().st_mtime < first
    assert digest in (folder / "report.html").read_text("utf-8")
    assert "processor" in (folder / "methods.md").read_text("utf-8")


def test_a_trial_by_hand_has_the_losses_of_the_study(
    smoke: tuple[Path, str], tmp_path: Path
) -> None:
    storage, _ = smoke
    shutil.copy(storage / "mlflow.db", tmp_path / "mlflow.db")  # which takes long to make
    trials = results(storage, "one")["trials"]
    trial = next(t for t in trials if (t["kind"], t["arm"]) == ("search", "layernorm"))
    given = [f"{name}={value!r}" for name, value in trial["parameters"].items()]
    asked = ["--space", "smoke", "--arm", "layernorm", "--set", *given]
    asked += ["--tracking-uri", default_uri(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "study.train", *asked],
        check=True,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=300,
    )
    assert f"trial {trial['trial']}: layernorm" in done.stdout
    said = re.findall(r"validation loss ([\d.]+)  train loss ([\d.]+)", done.stdout)
    found = [(rung["validation_loss"], rung["train_loss"]) for rung in trial["rungs"]]
    # In the study it may have shared its passes with another trial.
    assert [float(each) for pair in said for each in pair] == pytest.approx(
        [each for pair in found for each in pair], rel=1e-4
    )
    (run,) = [run for run in runs(tmp_path, "smoke") if run.data.tags["kind"] == "by hand"]
    assert run.info.status == "FINISHED" and run.data.tags["trial"] == trial["trial"]
    assert run.data.metrics["validation_loss"] == pytest.approx(found[-1][0], rel=1e-4)
    assert float(run.data.params["lr"]) == trial["parameters"]["lr"]
    assert run.data.metrics["trained_parameters"] == trial["costs"]["trained_parameters"]


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
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            assert run.data.params[name] == shown
        history = client.get_metric_history(run.info.run_id, "validation_loss")
        assert [(m.step, m.value) for m in history] == [
            (r["examples_seen"], six_digits(r["validation_loss"])) for r in expected["rungs"]
        ]
        scores = {p: six_digits(v) for p, v in expected["scores"].items() if v is not None}
        assert {part: run.data.metrics[f"{part}_percent"] for part in scores} == scores
        assert all(part.endswith(".report") for part in set(expected["scores"]) - set(scores))
    for trial, run in children.items():
        held = {file.path for file in client.list_artifacts(run.info.run_id, "model")}
        assert ("model/README.md" in held) == (found[trial]["kind"] == "confirm")
        if found[trial]["kind"] == "confirm" and found[trial]["arm"] == "lora":
            assert "model/adapter_model.safetensors" in held
    assert {"results.json", "report.html", "protocol.json", "methods.tex"} <= {
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
    where = ["--storage", str(storage), "--out", str(tmp_path / "out")]
    assert export.main(["one", *where, "--register", "winner"]) == 0
    client = MlflowClient(default_uri(storage))
    (version,) = client.search_model_versions("name = 'winner'")
    assert version.tags == {"study": "one", "arm": best["arm"], "trial": best["trial"]}
    registered = client.download_artifacts(version.run_id, "model/trained.safetensors")
    weights = Path(registered).read_bytes()
    assert weights == (tmp_path / "out" / "trained.safetensors").read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    assert " ".join(found["verdict"].split()) in card
    kept = answers.read(StudyFolder(storage=storage, name="one"), best["trial"], "test").to_pylist()
    for example, row in list(zip(phantom.load(None).test, kept, strict=True))[:5]:
        capsys.readouterr()
        asked = ["--image", str(example.image), "--question", example.question]
        assert predict.main([str(tmp_path / "out"), *asked]) == 0
        assert capsys.readouterr().out == row["answer"] + "\n"


def test_only_confirmed_trials_keep_what_they_trained(smoke: tuple[Path, str]) -> None:
    storage, _ = smoke
    only_confirmed(storage, "one")


def only_confirmed(storage: Path, study: str) -> None:
    kept = {path.parents[1].name for path in (storage / study).rglob("trained.safetensors")}
    trials = results(storage, study)["trials"]
    assert kept == {t["trial"] for t in trials if t["kind"] == "confirm"}


def test_resuming_a_finished_study_changes_nothing(smoke: tuple[Path, str]) -> None:
    storage, _ = smoke
    before = results(storage, "one")
    recorded = len(runs(storage, "smoke"))
    launch(storage, "--resume", "one")
    assert results(storage, "one") == before
    assert len(runs(storage, "smoke")) == recorded


@pytest.mark.slow
def test_a_killed_driver_goes_on_and_ends_with_the_same_numbers(smoke: tuple[Path, str]) -> None:
    """So two studies with one seed agree, whether one of them was killed or not."""
    storage, _ = smoke
    arguments = (*SMOKE, "--name", "killed")
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
    # As if it had come after the journal said that the first trial ended, and before its
    # checkpoint went.
    ended = re.findall("[0-9a-f]{12}", log.read_text())[0]
    left = storage / "killed" / "checkpoints" / ended / "000000000064"
    left.mkdir(parents=True)
    (left / "trained.safetensors").touch()
    # And as if the machine had failed too: what the other trial saved never came to the disk whole.
    (running,) = set(os.listdir(storage / "killed" / "checkpoints")) - {ended}
    for file in (storage / "killed" / "checkpoints" / running).glob("[0-9]*/optimizer.pt"):
        cut(file, "in half")
    launch(storage, *arguments)  # the same command again
    only_confirmed(storage, "killed")
    assert numbers(results(storage, "killed")) == numbers(results(storage, "one"))
    trials = [r.data.tags["trial"] for r in runs(storage, "smoke") if _of(r, storage, "killed")]
    assert len(trials) == len(set(trials)) == RUNS
    (again,) = (t for t in results(storage, "killed")["trials"] if t["trial"] == running)
    assert "was not whole: trained again" in again["remark"]


@pytest.mark.slow
def test_a_study_that_is_asked_to_end_puts_away_what_it_has(smoke: tuple[Path, str]) -> None:
    """SIGTERM is for the driver, as Kubernetes sends it. Ctrl-C asks the whole process group, of
    which Ray's processes take no notice. (They do of SIGTERM: a study whose Ray is gone ends too,
    and goes on as any other, but maybe with Ray's words.)"""
    storage, _ = smoke
    asked = (*SMOKE, "--name", "asked")
    goes_on = f"nothing is lost: python -m study.launch --resume asked --storage {storage} goes on"
    ends = (
        ([signal.SIGTERM], 143, f"interrupted; {goes_on}\n"),
        ([signal.SIGINT, signal.SIGINT], -signal.SIGINT, ""),
    )
    log = storage / "asked" / "study.log"
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:
        for signals, code, last in ends:
            before = log.read_text().count(" rung ") if log.exists() else 0
            with subprocess.Popen(
                command(storage, *asked),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=takes_signals,  # noqa: PLW1509  # sets signals only
                cwd=REPOSITORY,
                env=os.environ | {"TMPDIR": temporary},
            ) as driver:
                give_up = time.monotonic() + 240
                while not (log.exists() and log.read_text().count(" rung ") > before):
                    assert driver.poll() is None and time.monotonic() < give_up
                    time.sleep(0.05)
                for number in signals:
                    send = os.kill if number == signal.SIGTERM else os.killpg
                    send(driver.pid, number)
                    time.sleep(0.2)
                _, said = driver.communicate(timeout=30)
            assert (driver.returncode, said) == (code, last), said
            if len(signals) == 1:
                assert not list(Path(temporary).glob("medvlm-run-*"))
    launch(storage, *asked)
    assert numbers(results(storage, "asked")) == numbers(results(storage, "one"))
    trials = [r.data.tags["trial"] for r in runs(storage, "smoke") if _of(r, storage, "asked")]
    assert len(trials) == len(set(trials)) == RUNS


@pytest.mark.slow
def test_a_study_whose_disk_fills_up_stops_and_ends_with_the_same_numbers(
    smoke: tuple[Path, str], tmp_path: Path
) -> None:
    """First for a checkpoint that does not fit, then at whatever is written next."""
    storage, _ = smoke
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    asked = (*SMOKE, "--name", "full", "--tracking-uri", uri)
    with disk(tmp_path / "small", "250k") as small:
        stopped_by_its_disk(small, *asked)
        small.resize("20m")
        stopped_by_its_disk(small, *asked, fills_after=" rung ")
        small.free()
        launch(small.folder, "--resume", "full", "--concurrency", "1", "--tracking-uri", uri)
        only_confirmed(small.folder, "full")
        assert numbers(results(small.folder, "full")) == numbers(results(storage, "one"))
    recorded = MlflowClient(uri).search_runs(["1"], max_results=1000)
    assert len(recorded) == 1 + RUNS
    assert {run.info.status for run in recorded} <= {"FINISHED", "KILLED"}, "none is left running"


def stopped_by_its_disk(small: Disk, *asked: str, fills_after: str = "") -> None:
    """A study that stops in one line and leaves open what ran. Its disk is too small, or fills up
    when the study's log has that more often than when the study was begun: what finds no room then
    may be the beginning of a trial, so that none is open."""
    log = small.folder / "full" / "study.log"
    before = log.read_text().count(fills_after) if log.exists() else 0
    with subprocess.Popen(
        command(small.folder, *asked),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=REPOSITORY,
    ) as driver:
        give_up = time.monotonic() + 240
        while fills_after and log.read_text().count(fills_after) == before:
            assert driver.poll() is None and time.monotonic() < give_up
            time.sleep(0.02)
        if fills_after:
            small.fill()
        shown, said = driver.communicate(timeout=240)
    assert driver.returncode == 2, said
    (line,) = said.splitlines()
    assert line.startswith(f"error: no room is left in {small.folder} (")
    assert line.endswith("; make room, and --resume full goes on")
    assert "raylet" not in shown and "Traceback" not in shown
    copy = Path(tempfile.mkdtemp(dir=small.folder.parent))
    shutil.copy(small.folder / "full" / JOURNAL, copy)
    outcomes = [record.outcome for record in StudyJournal(copy).records.values()]
    assert set(outcomes) <= {None, Outcome.COMPLETE, Outcome.PRUNED}
    assert fills_after or None in outcomes


def _of(run: Run, storage: Path, study: str) -> bool:
    parent = run.data.tags.get("mlflow.parentRunId")
    if parent is None:
        return False
    client = MlflowClient(default_uri(storage))
    return bool(client.get_run(parent).data.tags["study"] == study)


LOST = """
from search_spaces.declare import Arm, Budget, LogUniform, Space, method

LR = LogUniform(1e25, 1e30)
SPACE = Space(
    question="Does a study end if all diverge?",
    arms={name: Arm(everywhere=method(name), lr=LR) for name in ("layernorm", "lora")},
    budget=Budget(trials=2, max_examples=96, rungs=1),
)
"""


@pytest.mark.slow
def test_a_study_whose_trials_all_diverge_ends_and_says_so(tmp_path: Path) -> None:
    space = tmp_path / "lost.py"
    space.write_text(LOST)
    jsonl.write(tmp_path)
    data = ("--data", "jsonl", "--data-root", str(tmp_path), "--split", "by_image")
    launch(tmp_path, "--space", str(space), *data, "--name", "one", "--seeds", "1")
    found = results(tmp_path, "one")
    assert found["verdict"] == (
        "No arm could be confirmed, so there is no answer.\nNo trial of layernorm and lora "
        "reported a loss: all 2 diverged; the space's learning rates may be too high."
    )
    assert found["baselines"]["untuned"]["overall"] is not None
    assert "not confirmed" in launch(tmp_path, "--resume", "one")
    assert results(tmp_path, "one") == found
    recorded = runs(tmp_path, "lost")
    assert {run.data.tags["kind"] for run in recorded} == {"study", "search", "untuned"}
    (parent,) = [run for run in recorded if run.data.tags["kind"] == "study"]
    assert parent.info.status == "FINISHED"
    assert " ".join(found["verdict"].split()) in parent.data.tags["mlflow.note.content"]


@pytest.mark.slow
@pytest.mark.deepspeed
def test_a_study_with_a_deepspeed_configuration_of_ones_own(tmp_path: Path) -> None:
    """Named before it starts, kept with the study, what its trials really ran with; it clips as
    plain PyTorch does here, and gives the losses of trials in plain PyTorch."""
    file = tmp_path / "mine.json"
    mine = {"zero_optimization": {"stage": 2}, "gradient_clipping": 1.0}
    file.write_text(json.dumps(mine))
    few = ("--trials", "2", "--max-examples", "64", "--seeds", "1", "--concurrency", "1")
    common = ("--space", "smoke", *few, "--precision", "fp32")
    shown = launch(tmp_path, *common, "--name", "own", "--deepspeed", str(file))
    assert "ZeRO-2, gradients clipped at 1" in shown
    kept = json.loads((tmp_path / "own" / "deepspeed.json").read_text())
    used = {**mine, "train_micro_batch_size_per_gpu": 1}
    assert kept == {"layernorm": used, "lora": used}

    children = [run for run in runs(tmp_path, "smoke") if _of(run, tmp_path, "own")]
    trained = [run for run in children if run.data.tags["kind"] != "untuned"]
    assert len(trained) == 2 + 2
    for run in trained:
        assert json.loads(run.data.tags["deepspeed"]) == used
    config = HostConfig(
        workload=WorkloadConfig(),
        ood_workloads={},
        study_folder=StudyFolder(storage=tmp_path, name="plain"),
        regime=Regime(),
        trials_per_host=1,
    )
    config.study_folder.path.mkdir()
    for record in StudyJournal(tmp_path / "own").records.values():
        if record.spec.kind is not Kind.UNTUNED:
            assert record.outcome is Outcome.COMPLETE
            expected = small.losses(small.alone(config, record.spec))
            found = [rung.validation_loss for rung in record.rungs]
            assert found == pytest.approx(expected, rel=1e-3)
