"""The command line: what cannot be is refused in one line, at once, with nothing written."""

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from study import audit, doctor, export, plan, predict, report, ui
from study.config.begun_study import begun_study
from study.config.definition import StudyDefinition
from study.config.deployment import Deployment
from study.config.settings import Settings
from study.config.study_json import check_resumable, open_study
from study.launch import Request, _named_store, _next_steps, _settings, main
from study.search.journal import StudyJournal
from study.storage.study_folder import StudyFolder
from study.workflow import EndedStudy, StudyRun
from tests.trainables.data.small import jsonl
from trainables.errors import BadInput

LARGE_AND_SMALL = """
from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method
SPACE = Space(
    question="?",
    arms={
        "full": Arm(everywhere=method("full"), lr=LogUniform(1e-4, 1e-2)),
        "layernorm": Arm(everywhere=method("layernorm"), lr=Choice(1e-3, 1e-2)),
        "lora": Arm(everywhere=method("lora"), lr=Choice(1e-2)),
    },
    budget=Budget(trials=8, max_examples=64, rungs=0, batch_size=8),
)
"""
SPACE = """
from search_spaces.declare import Arm, LogUniform, Space, method
SPACE = Space(question="?", arms={"a": Arm(everywhere=method(%s), lr=LogUniform(1e-4, 1e-2))})
"""


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "study.launch", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def refused(storage: Path, *arguments: str) -> str:
    """The one line that a refused command prints."""
    done = launch("--storage", str(storage), *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    left = {path.name for path in storage.iterdir()} if storage.exists() else set()
    assert not left - {"mlflow.db"}, "a refused command left something behind"
    return lines[0]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "layernorm_vs_lor"], "did you mean 'layernorm_vs_lora'?"),
        (["--space", "smoke", "--trials", "0"], "--trials must be at least 1"),
        (["--space", "smoke", "--devices-per-trial", "3"], "give one of 1, 2, 4, 8, 16, 32"),
        (["--space", "smoke", "--device-gib", "0"], "--device-gib must be more than 1"),
        (["--space", "smoke", "--image-size", "100"], "no multiple of the model's patches of 16"),
        (
            ["--space", "smoke", "--choose", "likelihood"],
            "--choose likelihood: no question of --data phantom has options",
        ),
        (["--space", "smoke", "--name", "../up"], "--name '../up' must be letters"),
        (["--space", "smoke", "--tracking-uri", "htp://x"], "must begin with one of: sqlite"),
        (["--resume", "nothing"], "there is no folder"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    """In processes of their own and without ``--dry-run``; ``tests/bad_input`` tries the rest."""
    assert said in refused(tmp_path / "studies", *arguments)


@pytest.mark.parametrize(
    ("launcher", "told"),
    [
        ("torchrun", {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}),
        ("accelerate launch", {"TORCHELASTIC_RUN_ID": "none", "ACCELERATE_DYNAMO_BACKEND": "no"}),
        ("deepspeed", {"CROSS_RANK": "0", "CROSS_SIZE": "1", "LOCAL_SIZE": "2"}),
    ],
)
def test_several_copies_of_a_study_are_refused(
    launcher: str, told: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**told, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    said = refused(tmp_path / "studies", "--space", "smoke")
    assert f"started by {launcher} with 2 processes; start one" in said


def test_data_that_leak_are_refused_unless_allowed(tmp_path: Path) -> None:
    lines = jsonl.rows()
    leaking = [{**line, "split": split} for split in ("train", "test") for line in lines]
    root = tmp_path / "data"
    root.mkdir()
    jsonl.write(root, [*leaking, {**lines[0], "split": "validation"}])
    asked = ("--space", "smoke", "--data", "jsonl", "--data-root", str(root))
    said = refused(tmp_path / "studies", *asked)
    assert "60 of 60 test questions (100.0%)" in said and said.endswith(
        "--allow-leak runs it all the same"
    )
    allowed = launch(*asked, "--allow-leak", "--dry-run")
    assert allowed.returncode == 0 and "60 of 60 test questions" in " ".join(allowed.stdout.split())


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ('"lorra"', "unknown method 'lorra'; did you mean 'lora'?"),
        ('"lora", rank=0', "lora rank must be at least 1 but got 0"),
        ('"lora", rnk=4', "unknown setting of method 'lora' 'rnk'; did you mean 'rank'?"),
        ('"lora"), lr=-1.0)}) #', "the lr of an Arm must be positive but got -1.0"),
        ('"lora"), lr=LogUniform(-1e-3, 1))}) #', "LogUniform needs 0 < low < high but got -0.001"),
        ("nonsense", "line 3: NameError: name 'nonsense' is not defined"),
    ],
)
def test_a_space_of_ones_own_is_checked_too(method: str, said: str, tmp_path: Path) -> None:
    space = tmp_path / "mine.py"
    space.write_text(SPACE % method)
    assert said in refused(tmp_path / "studies", "--space", str(space))


def test_unknown_addresses_are_found_out_at_once(tmp_path: Path, free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    said = refused(tmp_path / "studies", "--space", "smoke", "--address", address)
    assert f"no Ray cluster at --address '{address}'" in said
    uri = f"http://{address}"
    said = refused(tmp_path / "studies", "--space", "smoke", "--tracking-uri", uri)
    assert f"no MLflow server answers at --tracking-uri {uri}" in said


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://study:planted@127.0.0.1:1", "no MLflow server answers at"),
        ("http://study:plan/ted@127.0.0.1", "has no port that is a number; in a password write"),
        ("ftp://study:planted@mlflow", "must begin with one of"),
    ],
)
def test_a_refusal_says_no_password(
    uri: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--space", "smoke", "--storage", str(tmp_path), "--tracking-uri", uri]
    assert main(options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "://study:***@" in line and "plan" not in line


@pytest.mark.parametrize("command", [audit, doctor, export, plan, predict, report, ui])
def test_an_option_that_is_not_there_is_refused_without_its_password(
    command: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {audit: [], doctor: [], plan: ["--space", "x"]}.get(command, ["x"])
    given += ["--image=x", "--question=x"] if command is predict else []
    assert command.main([*given, "--tracking-url", "http://study:planted@mlflow"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(
        "error: there is no option --tracking-url (--tracking-url http://study:***@mlflow); "
    )


def test_no_permission_on_the_storage(tmp_path: Path) -> None:
    storage = tmp_path / "studies"
    storage.mkdir(mode=0o500)
    if os.geteuid() == 0:  # root may write anywhere but here
        storage = Path("/proc/studies")
    said = launch("--space", "smoke", "--storage", str(storage))
    assert said.returncode == 2
    assert f"cannot write to --storage {storage}" in said.stderr
    assert said.stderr.count("\n") == 1


def test_list_shows_every_space_with_its_question() -> None:
    from study.config import spaces

    shown = launch("--list").stdout
    for name, question in spaces.questions().items():
        assert name in shown and question in shown


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    """A dry run imports no torch either, nor does what the zygote sends: it would take seconds."""
    storage = tmp_path / "studies"
    asked = ("--space", "per_slot", "--against", "frozen_full_lora", "--dry-run")
    probe = (
        "import sys; from study import launch; code = launch.main(sys.argv[1:]); "
        "print(code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", probe, *asked, "--storage", str(storage)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
    assert "compare  each arm with frozen_full_lora alone: 4 tests to correct for" in done.stdout
    assert "claims   how these tuned models differ, and not the methods" in done.stdout
    assert re.search(r"shows    differences from \d+\.\d points, and arms as good to", done.stdout)
    for part in ("frozen_full_lora", "decoder.lora.rank {4, 8, 16}", "always the most frequent"):
        assert part in done.stdout
    assert not storage.exists()


@pytest.mark.long
@pytest.mark.slow
def test_a_dry_run_says_where_trials_will_run_and_how(tmp_path: Path) -> None:
    storage = str(tmp_path / "studies")
    told = launch("--space", "smoke", "--dry-run", "--storage", storage, "--devices-per-trial", "2")
    assert told.returncode == 0, told.stderr
    shown = " ".join(told.stdout.split())
    assert "devices all arms: gang, 2 devices, ZeRO-2, 16 questions at once (as told)" in shown
    assert "engine lora: ZeRO-2, 73,728 values exchanged at once, gradients clipped at 1" in shown
    whole = shown.split("engine lora")[1].split("configuration: ")[1]
    found, _ = json.JSONDecoder().raw_decode(whole)
    assert found["zero_optimization"]["stage"] == 2 and found["gradient_clipping"] == 1
    assert re.search(r"compute \d+ at a time on cpu, \w+ devices", shown), (
        "there is no guess of time"
    )

    asked = ("--space", "smoke", "--dry-run", "--storage", storage, "--device-gib", "1.05")
    placed = launch(*asked)
    assert placed.returncode == 0, placed.stderr
    assert "in 2 pieces" in placed.stdout and "a whole batch would take" in placed.stdout
    assert re.search(r"time     about [\d.]+ \w+, at most", placed.stdout)
    shown = " ".join(placed.stdout.split())
    corrected = re.search(r"three steps of each arm on a device: ([\d.]+) to ([\d.]+) of", shown)
    assert corrected and all(0.9 < float(found) < 1.1 for found in corrected.groups())
    assert "devices untuned: solo, 1 device, plain, 64 questions at once (it only ans" in shown

    space = tmp_path / "sizes.py"
    space.write_text(LARGE_AND_SMALL)
    one = launch("--space", str(space), *asked[2:-1], "1.08", "--precision", "fp32")
    assert one.returncode == 0, one.stderr
    shown = " ".join(one.stdout.split())
    assert "not run full: it takes" in shown and "a recipe that trains less" in shown
    assert "confirm 2 arms x 3 seeds = 6 trainings" in shown
    until = "until no arm may gain more than 1 point"
    assert f"search at most 3 trials, {until}, drawn by gp; 64 examples" in shown


def test_the_end_of_a_study_says_the_three_things_that_matter(tmp_path: Path) -> None:
    """The report, where MLflow shows the study, and how the winner is used, if there is one."""
    report_, storage = tmp_path / "a b" / "one" / "report.html", str(tmp_path / "a b")
    where = StudyFolder(storage=storage, name="one")
    for uri, mlflow in (
        ("sqlite:///m.db", f"python -m study.ui one --storage '{storage}'"),
        ("http://me:secret@mlflow:5000/", "http://mlflow:5000/#/view"),
    ):
        for has_winner, winner in (
            (True, f"python -m study.export one --storage '{storage}'"),
            (False, "none: no arm was confirmed, and the report says why"),
        ):
            ended = EndedStudy(report=report_, view="/#/view", has_winner=has_winner)
            lines = _next_steps(
                ended, Request(storage=storage), Deployment(study_folder=where, tracking_uri=uri)
            )
            assert lines == ["", f"report  '{report_}'", f"MLflow  {mlflow}", f"winner  {winner}"]


def test_a_study_that_goes_on_is_recorded_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless the user names another store, by the option or by the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "study.json").write_text("{}")
    journal, storage = StudyJournal(tmp_path / "one"), str(tmp_path)
    journal.record_mlflow("http://mlflow:5000")
    assert _named_store(Request(storage=storage, resume="one")) == "http://mlflow:5000"
    assert capsys.readouterr().out == (
        "MLflow is http://mlflow:5000, where the study was recorded\n"
    )
    assert _named_store(Request(storage=storage, resume="one", tracking_uri="http://b")) == (
        "http://b"
    )
    assert _named_store(Request(storage=storage, name="one")) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://c")
    assert _named_store(Request(storage=storage, resume="one")) == "http://c"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    journal.record_mlflow("")
    assert _named_store(Request(storage=storage, resume="one")) is None


def test_only_a_study_of_one_seed_gets_more_seeds(tmp_path: Path) -> None:
    """A study of one seed calls no arm better, so seeds may be added to it. They may not be added
    to a study that may have called one better."""
    study = StudyFolder(storage=tmp_path, name="one")
    for began, asked, goes_on in ((1, 3, True), (3, 5, False), (2, 1, False)):
        definition = StudyDefinition.parse(Settings(space="smoke", seeds=began))
        open_study(study, definition, run=["lora"], base={})
        request = Request(storage=str(tmp_path), resume="one")
        if not goes_on:
            with pytest.raises(BadInput, match=f"was begun with seeds={began}, not {asked}") as no:
                _settings(request, {"seeds": asked})
            assert ("seeds that are added after a look" in str(no.value)) == (asked > began)
        else:
            more = StudyDefinition.parse(_settings(request, {"seeds": asked}))
            check_resumable(study, more)
            open_study(study, more, run=["lora"], base={})
            assert begun_study(study.path).settings.seeds == asked
        shutil.rmtree(study.path)


HOLDS = """
import sys, time
from study.storage.study_folder import StudyFolder
with StudyFolder(storage=sys.argv[1], name="one").only_driver():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_driver_changes_nothing(tmp_path: Path) -> None:
    folder = StudyFolder(storage=tmp_path, name="one")
    definition = StudyDefinition.parse(Settings(space="smoke", seeds=1))
    open_study(folder, definition, run=["lora"], base={})
    more = StudyDefinition.parse(Settings(space="smoke", seeds=3))
    begun = subprocess.Popen(
        [sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert begun.stdout is not None and begun.stdout.readline() == "held\n"
        before = {path: path.read_bytes() for path in folder.path.iterdir()}
        deployment = Deployment(study_folder=folder, tracking_uri="")
        with ExitStack() as opened, pytest.raises(BadInput, match="is running already"):
            StudyRun(more, deployment, Console(), opened, 0.0).open_folder()
        assert {path: path.read_bytes() for path in folder.path.iterdir()} == before
    finally:
        begun.kill()
        begun.communicate()


def test_a_lock_that_was_removed_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opened it before a driver that began no study removed it would drive the study beside
    one that makes a new lock."""
    folder = StudyFolder(storage=tmp_path, name="one")
    folder.path.mkdir()
    real = fcntl.flock

    def flock(*given: object) -> None:
        real(*given)  # type: ignore[arg-type]  # passed on
        (folder.path / ".lock").unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    match = "was given up by another process just now"
    with pytest.raises(BadInput, match=match), folder.only_driver():
        pytest.fail("it drives the study")


def test_what_has_not_begun_leaves_no_folder(tmp_path: Path) -> None:
    folder = StudyFolder(storage=tmp_path, name="one")
    folder.path.mkdir()
    with folder.only_driver():
        assert folder.path.is_dir()
    assert not folder.path.exists()
