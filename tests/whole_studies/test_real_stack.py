"""The stack of infra/, for real, on this machine: a Ray cluster of three nodes with tokens, MLflow
with passwords on PostgreSQL, studies in an S3 store. A study on it loses its nodes, gets another,
loses its driver, goes on elsewhere, and finds what the same study finds on a laptop; then MLflow's
database is lost and brought back."""

import re
import secrets
import shlex
import shutil
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.server.auth.client import AuthServiceClient

from study import export
from study.storage.object_store import ObjectStore
from study.tracking.mlflow_runs import MlflowRuns, six_digits
from tests.infra.manifests import one, render
from tests.study.command_line import numbers, results
from tests.study.object_store import serve
from tests.study.ray_nodes import Cluster, ray_cluster
from tests.study.stack import (
    REPOSITORY,
    MlflowServer,
    Postgres,
    Process,
    kill,
    mlflow_server,
    postgres,
    start,
)
from trainables.errors import BadInput

pytestmark = pytest.mark.slow
STORAGE = "s3://studies/all"
SPACE = """
from search_spaces.declare import Arm, Budget, LogUniform, Space, method

def arm(name):
    return Arm(everywhere=method(name), lr=LogUniform(1e-3, 1e-1))

# One trial an arm: none is stopped by another, so it decides nothing which of two comes in first.
SPACE = Space(
    question="Does a study survive?",
    arms={name: arm(name) for name in ("layernorm", "bitfit", "lora")},
    budget=Budget(trials=3, max_examples=288, rungs=1),
)
"""


@dataclass(frozen=True)
class Stack:
    folder: Path
    database: Postgres
    mlflow: MlflowServer
    cluster: Cluster
    study: tuple[str, ...]
    """What both studies are asked for."""
    environment: dict[str, str]
    """For a driver: of the store, MLflow and Ray."""

    def command(self, address: str, module: str, *arguments: str) -> list[str]:
        uri = self.environment["MLFLOW_TRACKING_URI"]
        where = ("--address", address, "--storage", STORAGE, "--tracking-uri", uri)
        return [sys.executable, "-m", module, *where, *arguments]

    def home(self, machine: str) -> Path:
        return self.folder / machine

    def start(self, machine: str, module: str, *arguments: str, **other: str) -> Process:
        """On a machine that nothing was ever kept on."""
        self.home(machine).mkdir(exist_ok=True)
        own = {"HOME": str(self.home(machine)), "XDG_CACHE_HOME": "", **other}
        command = self.command(self.cluster.address, module, *arguments)
        return start(command, {**self.environment, **own}, self.folder / f"{machine}.log")

    def run(self, machine: str, module: str, *arguments: str, **other: str) -> tuple[int, str]:
        """Exit code, and what was shown."""
        code = self.start(machine, module, *arguments, **other).wait(timeout=400)
        return code, (self.folder / f"{machine}.log").read_text()

    def told(self, machine: str) -> str:
        """The log of the study, as that machine's copy has it."""
        logs = [copy / "one" / "study.log" for copy in copies(self.home(machine))]
        return "".join(log.read_text() for log in logs if log.exists())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    space = tmp_path_factory.mktemp("space") / "survival.py"
    space.write_text(SPACE)
    devices = ("--concurrency", "2", "--device-gib", "16")
    return ("--space", str(space), "--seeds", "1", *devices, "--name", "one")


@pytest.fixture(scope="module")
def laptop(
    study: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Gives the results of the same study without any of it, which runs beside the rest."""
    storage = tmp_path_factory.mktemp("laptop")
    command = [sys.executable, "-m", "study.launch", "--storage", str(storage), *study]
    process = start(command, {}, storage / "log")

    def found() -> dict[str, Any]:
        assert process.wait(timeout=400) == 0, (storage / "log").read_text()
        return results(storage, "one")

    try:
        yield found
    finally:
        kill(process)


@pytest.fixture(scope="module")
def stack(
    study: tuple[str, ...],
    laptop: Callable[[], dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    paths = {"PYTHONPATH": str(REPOSITORY)}
    with ExitStack() as parts, ThreadPoolExecutor() as pool:
        store = parts.enter_context(serve("studies", "mlflow"))
        database = parts.enter_context(postgres(folder / "postgres.log"))
        server = mlflow_server(folder / "mlflow", database.uri("mlflow"), store)
        mlflow = parts.enter_context(server)
        served = pool.submit(mlflow.start)
        environment = {**store, **token, **paths}
        nodes = ray_cluster(folder / "nodes", environment, driver=mlflow.client)
        cluster = parts.enter_context(nodes)
        cluster.start("a", "b")
        served.result()
        environment |= mlflow.client
        yield Stack(folder, database, mlflow, cluster, study, environment)


def copies(home: Path) -> list[Path]:
    """The copies of stores that a machine has."""
    return list((home / ".cache" / "medvlm-study" / "storage").glob("*"))


def under_way(log: str) -> dict[str, bool]:
    """Each trial that has begun and not ended: whether it has reached its rung."""
    trials: dict[str, bool] = {}
    for line in log.splitlines():
        _, event, *rest = line.split()
        (trial,) = [word for word in rest if re.fullmatch("[0-9a-f]{12}", word)]
        if event in ("start", "rung"):
            trials[trial] = event == "rung"
        else:
            trials.pop(trial)
    return trials


def test_the_doctor_finds_the_cluster_fit(stack: Stack) -> None:
    """As a job from outside, where Ray can take one."""
    if stack.cluster.takes_jobs:
        code, said = stack.cluster.submit(stack.command("auto", "study.doctor"))
    else:
        code, said = stack.run("doctor", "study.doctor")
    assert code == 0, said
    assert "Ray: 3 nodes, 2 processors" in said
    assert "each node reads what each node wrote" in said
    assert "GLOO: all add up to the same sum" in said
    assert "problem" not in said


def test_who_has_no_token_gets_no_job_in(stack: Stack) -> None:
    if not stack.cluster.takes_jobs:
        pytest.skip("ray[default] is not here: make test installs it apart")
    code, said = stack.cluster.submit(["touch", str(stack.folder / "in")], RAY_AUTH_TOKEN="0" * 64)
    assert code != 0 and "Invalid authentication token" in said, said
    assert not (stack.folder / "in").exists()


def test_who_has_no_password_is_kept_out(stack: Stack) -> None:
    wrong = {"RAY_AUTH_TOKEN": "0" * 64, "MLFLOW_TRACKING_PASSWORD": "guess"}
    code, said = stack.run("stranger", "study.doctor", **wrong)
    assert code == 1 and "Traceback" not in said, said
    (mlflow, ray) = [line for line in said.splitlines() if line.startswith("problem")]
    assert "MLflow" in mlflow and "does not let this user in" in mlflow
    assert "Ray" in ray and "RAY_AUTH_TOKEN" in ray

    def status(host: str | None = None, password: str | None = None) -> int:
        uri = stack.environment["MLFLOW_TRACKING_URI"]
        request = urllib.request.Request(f"{uri}/api/2.0/mlflow/experiments/get?experiment_id=0")
        if host:
            request.add_header("Host", host)
        if password:
            word = b64encode(f"admin:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status(password=stack.mlflow.admin) == 200
    assert status() == 401
    assert status(password=stack.mlflow.admin, host="evil.example.org") == 403


def test_a_wrong_password_is_told_before_anything_is_written_or_started(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (*stack.study, "--name", "refused")
    code, said = stack.run("resident", "study.launch", *asked, MLFLOW_TRACKING_PASSWORD="guess")
    (line,) = said.splitlines()
    assert code == 2 and line.startswith("error: --tracking-uri")
    assert "does not let this user in" in line
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    assert not [key for key in ObjectStore(STORAGE).listing() if key.startswith("refused")]
    assert not [path for copy in copies(stack.home("resident")) for path in copy.glob("refused*")]


def test_who_may_only_read_runs_is_told_so(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    def runs(user: str, password: str) -> MlflowRuns:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        uri = stack.environment["MLFLOW_TRACKING_URI"]
        return MlflowRuns(uri, experiment="of studies", artifacts=stack.folder)

    mine = runs("study", stack.environment["MLFLOW_TRACKING_PASSWORD"])
    assert mine.begin_study("one", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", stack.mlflow.admin)
    AuthServiceClient(mine.uri).create_user("reader", "a long password")
    with pytest.raises(BadInput, match="Permission denied"):
        runs("reader", "a long password").begin_study("two", "2")


def test_a_study_that_loses_its_nodes_and_its_driver_finds_the_same(
    stack: Stack, laptop: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = stack.start("driver", "study.launch", *stack.study)

    def wait_until(what: str, condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 480
        while not condition():
            assert driver.poll() is None, (stack.folder / "driver.log").read_text()
            assert time.monotonic() < give_up, f"no {what} within 8 minutes"
            time.sleep(0.05)

    try:
        wait_until("rung", lambda: any(under_way(stack.told("driver")).values()))
        stack.cluster.kill("a", "b")
        lost = {trial for trial, rung in under_way(stack.told("driver")).items() if rung}
        assert lost, "the trial that was waited for has ended"
        seen = stack.told("driver").count(" rung ")
        stack.cluster.start("c")
        wait_until("rung on the new node", lambda: stack.told("driver").count(" rung ") > seen)
        assert [bool(copies(stack.cluster.home(name))) for name in "abc"] == [False, False, True]
    finally:
        kill(driver)
    dump = nightly_dump(stack)
    shutil.rmtree(stack.home("driver"))

    code, said = stack.run("elsewhere", "study.launch", "--resume", "one")
    assert code == 0 and "Warning" not in said, said
    shown = (stack.folder / "driver.log").read_text()
    assert "retries remaining" not in shown
    assert "corrected by three steps of each arm on a device" in shown, "the head has none"
    assert f"{STORAGE}/one" in said
    (copy,) = copies(stack.home("elsewhere"))
    assert numbers(results(copy, "one")) == numbers(laptop())
    rungs = re.findall(r" rung .* ([0-9a-f]{12}) (\d+) examples", stack.told("elsewhere"))
    assert lost <= {trial for trial, _ in rungs}
    assert len(rungs) == len(set(rungs)), "a trial began again instead of going on from its rung"

    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    kept = ObjectStore(f"{STORAGE}/one").listing()
    assert {"study.json", "optuna.journal", "results.json", "report.html"} <= set(kept)
    assert "driver.json" not in kept, "nobody runs it any more"
    confirmed = {t["trial"] for t in laptop()["trials"] if t["kind"] == "confirm"}
    assert {key.split("/")[1] for key in kept if key.startswith("checkpoints/")} == confirmed
    in_mlflow(laptop())

    monkeypatch.setenv("XDG_CACHE_HOME", str(stack.home("exporter")))
    winner = stack.home("exporter") / "winner"
    assert export.main(["one", "--storage", STORAGE, "--out", str(winner)]) == 0
    assert list(winner.rglob("adapter_config.json"))

    restore(stack, dump)
    with pytest.raises(AssertionError):
        in_mlflow(laptop())
    code, said = stack.run("elsewhere", "study.launch", "--resume", "one")
    assert code == 0, said
    in_mlflow(laptop())


def in_mlflow(laptop: dict[str, Any]) -> None:
    """Every trial once, with its losses; the report through the server's proxy."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name("survival")
    assert experiment is not None and experiment.artifact_location.startswith("mlflow-artifacts:")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["kind"] == "study"]
    assert parent.info.status == "FINISHED"
    children = {run.data.tags["trial"]: run for run in runs if run is not parent}
    assert len(children) == len(runs) - 1
    assert set(children) == {trial["trial"] for trial in laptop["trials"]}
    for trial in laptop["trials"]:
        run = children[trial["trial"]]
        history = client.get_metric_history(run.info.run_id, "validation_loss")
        assert [m.value for m in history] == [
            six_digits(rung["validation_loss"]) for rung in trial["rungs"]
        ]
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"results.json", "report.html"} <= files
    assert ObjectStore("s3://mlflow/artifacts").listing(), "the proxy keeps them in the store"


def nightly_dump(stack: Stack) -> Path:
    """MLflow's database, by the commands of the nightly job."""
    job = one(render("mlflow/overlays/in-cluster"), "CronJob")["spec"]["jobTemplate"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    folder = stack.folder / "backup"
    folder.mkdir()
    (script,) = container["args"]
    stack.database.call(
        *container["command"], script.replace("/backup", str(folder)), PGDATABASE="mlflow"
    )
    (dump,) = folder.iterdir()
    assert re.fullmatch(r"mlflow-\d{8}T\d{6}Z\.dump", dump.name)
    return dump


def restore(stack: Stack, dump: Path) -> None:
    """By the commands of infra/README.md, as they are run inside of the pod for it."""
    section = (REPOSITORY / "infra" / "README.md").read_text().split("## Backup and restore")[1]
    commands = re.findall(r"exec restore -- (.*)", section)
    assert [shlex.split(c)[0] for c in commands] == ["ls", "createdb", "pg_restore", "psql"]
    stack.mlflow.stop()
    for command in commands:
        words = [str(dump) if word.endswith(".dump") else word for word in shlex.split(command)]
        words = [str(dump.parent) if word == "/backup" else word for word in words]
        stack.database.call(*words)
    stack.mlflow.start()
