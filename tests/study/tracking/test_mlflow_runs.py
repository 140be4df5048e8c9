"""MLflow as its users have it: a server, and its client over HTTP."""

import math
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.dbmodels.initial_models import Base
from sqlalchemy import create_engine, text

from study import ui
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.study_json import identity, open_study
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage.paths import MLFLOW_ARTIFACTS, MLFLOW_DATABASE
from study.storage.study_folder import StudyFolder
from study.tracking import mlflow_store
from study.tracking.mlflow_runs import MlflowRuns, six_digits
from study.tracking.mlflow_views import GENERAL, address
from study.tracking.mlflow_writer import MlflowWriter
from study.trials.spec import Kind
from tests.study.browser import serving
from tests.study.made_up import PROTOCOL, SPACE, cards, play_all, rules
from tests.study.proxy import losing
from trainables.errors import BadInput

DEFINITION = StudyDefinition.parse(Settings(space="smoke"))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder for ``study.ui`` to serve, with an MLflow store that a kill left half
    made."""
    folder = tmp_path_factory.mktemp("studies")
    engine = create_engine(mlflow_store.default_uri(folder))
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(text("CREATE TABLE registered_models (name VARCHAR)"))
    engine.dispose()
    os.utime(folder / MLFLOW_DATABASE, (0, 0))
    return folder


@pytest.fixture(scope="module")
def server(storage: Path) -> Iterator[str]:
    """Its address."""
    with serving(storage) as uri:
        yield uri


def begin(storage: Path, name: str) -> Path:
    """The folder of a study that has begun."""
    study_folder = StudyFolder(storage=storage, name=name)
    return open_study(study_folder, DEFINITION, run=DEFINITION.space.arms, base={})


@pytest.fixture(scope="module")
def recorded(storage: Path, server: str) -> tuple[MlflowRuns, StudyScheduler]:
    """A made-up study that was recorded over HTTP, asked for twice."""
    folder = begin(storage, "one")
    protocol = PROTOCOL | {"identity": identity(folder)}
    runs = MlflowRuns(server, experiment="smoke", artifacts=storage / MLFLOW_ARTIFACTS)
    journal = StudyJournal(storage / "one")
    for _ in range(2):
        tracking = MlflowWriter(runs, "one")
        tracking.begin(SPACE, protocol, journal.records.values())
        scheduler = play_all(StudyScheduler(rules(), journal, [tracking]))
        models = [r.spec.id for r in journal.of_kind(Kind.CONFIRM)]
        tracking.finish(
            "verdict", "models", "table", {"lora.test.overall_percent": 50.0}, [], models, cards
        )
        assert tracking.error == ""
    return runs, scheduler


def test_a_client_finds_all_of_a_study(
    server: str, recorded: tuple[MlflowRuns, StudyScheduler]
) -> None:
    _, scheduler = recorded
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'study'")
    under = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = client.search_runs([experiment.experiment_id], under)
    assert {r.data.tags["trial"] for r in children} == set(scheduler.journal.records)
    assert len(children) == len(scheduler.journal.records)
    for run in children:
        record = scheduler.journal.records[run.data.tags["trial"]]
        history = client.get_metric_history(run.info.run_id, "validation_loss")
        assert [m.step for m in history] == [rung.examples_seen for rung in record.rungs]
        trained = record.spec.kind is not Kind.UNTUNED
        lr = float(run.data.params["lr"]) if trained else None
        assert lr == (pytest.approx(record.spec.lr, rel=1e-5) if trained else None)
        assert run.data.params.get("schedule") == ("cosine" if trained else None)
        names = {i.dataset.name for i in run.inputs.dataset_inputs}
        assert ("phantom.test" in names) == (record.spec.kind is not Kind.SEARCH)
    where = "tags.kind = 'confirm' and params.arm = 'lora'"
    first = client.search_runs([experiment.experiment_id], where)[0]
    assert first.data.params["lora.rank"] in ("2", "8")
    card = client.download_artifacts(first.info.run_id, "model/README.md")
    assert Path(card).read_text() == "a card"


def test_a_confirmed_model_is_registered_once(
    storage: Path, server: str, recorded: tuple[MlflowRuns, StudyScheduler]
) -> None:
    runs, scheduler = recorded
    parent = runs.study("one", identity(storage / "one"))
    assert parent is not None
    trial = scheduler.journal.of_kind(Kind.CONFIRM)[0].spec.id
    run = runs.trials(parent.info.run_id)[trial].info.run_id
    for _ in range(2):
        assert runs.register(run, "winner", {"arm": "lora"}, "better") == "models:/winner/1"
    (version,) = MlflowClient(server).search_model_versions("name = 'winner'")
    assert version.run_id == run and version.source == f"runs:/{run}/model"
    assert version.status == "READY" and version.tags == {"arm": "lora"}


def test_another_study_of_that_name_has_runs_of_its_own(
    server: str, recorded: tuple[MlflowRuns, StudyScheduler], storage: Path, tmp_path: Path
) -> None:
    """On a server that many use, each from a storage of his own."""
    runs, _ = recorded
    first = runs.study("one", identity(storage / "one"))
    assert first is not None
    where = tmp_path / "studies"
    where.mkdir()
    folder = begin(where, "one")
    tracking = MlflowWriter(runs, "one")
    tracking.begin(SPACE, PROTOCOL | {"identity": identity(folder), "seed": 1}, [])
    tracking.close()
    assert tracking.error == "" and tracking.parent_id != first.info.run_id
    assert runs.trials(tracking.parent_id) == {}
    runs.client.delete_run(tracking.parent_id)


def test_the_views_of_a_study_are_linked(
    storage: Path,
    server: str,
    recorded: tuple[MlflowRuns, StudyScheduler],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs, _ = recorded
    parent = runs.study("one", identity(storage / "one"))
    assert parent is not None
    where = ["--storage", str(storage), "--tracking-uri", server]
    assert ui.main(["one", *where]) == 0
    said = capsys.readouterr().out.splitlines()
    keys = {"one": parent.info.run_id, **{name: key for key, name in GENERAL.items()}}
    views = [f"{n:9}  {server}{address(runs.experiment_id, key)}" for n, key in keys.items()]
    assert said == [*views, server]
    monkeypatch.setenv(mlflow_store.VARIABLE, server)
    assert ui.main(["one", *where[:2]]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"MLflow is {server}, as MLFLOW_TRACKING_URI says" and rest == said
    assert ui.main(where) == 0
    assert capsys.readouterr().out.splitlines() == said, "it is the latest study"
    assert ui.main(["oen", *where]) == 2
    assert "did you mean 'one'?" in capsys.readouterr().err


def test_a_study_is_found_where_its_last_session_recorded_it(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an option that names the store."""
    folder = begin(tmp_path, "elsewhere")
    runs = MlflowRuns(server, experiment="smoke", artifacts=tmp_path)
    runs.begin_study("elsewhere", identity(folder))
    journal = StudyJournal(folder)
    for uri in (mlflow_store.default_uri(tmp_path), server):
        journal.record_mlflow(mlflow_store.noted(uri, tmp_path))
    for name in (["elsewhere"], []):
        assert ui.main([*name, "--storage", str(tmp_path)]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[-1] == server and said[0].startswith(f"elsewhere  {server}/#/experiments/")
    other = ["--tracking-uri", f"sqlite:///{tmp_path / 'other.db'}"]
    assert ui.main(["elsewhere", "--storage", str(tmp_path), *other]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no run of study 'elsewhere'; give --tracking-uri" in line and server in line
    journal.record_mlflow("sqlite:////nowhere/m.db")
    assert ui.main(["elsewhere", "--storage", str(tmp_path)]) == 2
    assert "sqlite:////nowhere/m.db, which is not there" in capsys.readouterr().err


def test_the_store_stands_in_no_command_line(storage: Path, server: str) -> None:
    """A database's address may have a password."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    served = [line for line in lines if str((storage / MLFLOW_ARTIFACTS).resolve()) in line]
    assert served and not [
        w for line in lines for w in line if mlflow_store.default_uri(storage) in w
    ]


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        with ui._claimed_port(taken) as first, ui._claimed_port(taken) as second:
            assert taken < first < second <= taken + ui.MOST_TAKEN, "no two get the same"
        with ui._claimed_port(taken) as again:
            assert again == first
    with (
        pytest.raises(BadInput, match="--port must be from 1 to 65535, got 70000"),
        ui._claimed_port(70000),
    ):
        pass


def test_a_metric_has_six_digits_and_a_count_all_of_its() -> None:
    numbers = [41.732283464566926, 1.2219712e-05, 123456.78, 7_241_732_096.0, -2.0, math.inf]
    found = [six_digits(number) for number in numbers]
    assert found == [41.7323, 1.22197e-05, 123457.0, 7_241_732_096.0, -2.0, math.inf]


def test_a_store_that_is_not_there_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ui.main(["--storage", str(tmp_path)]) == 2
    assert "no studies in" in capsys.readouterr().err


def test_an_experiment_that_was_deleted_is_restored(server: str, tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=server)
    made = MlflowRuns(server, experiment="deleted", artifacts=tmp_path).experiment_id
    client.delete_experiment(made)
    assert MlflowRuns(server, experiment="deleted", artifacts=tmp_path).experiment_id == made
    assert client.get_experiment(made).lifecycle_stage == "active"


def test_a_server_may_be_reached_through_a_proxy_alone(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which knows its name."""
    uri = "http://mlflow.invalid:5000"
    with losing(server, "none") as proxy:
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("http_proxy", proxy.uri)
        mlflow_store.check(uri)
        monkeypatch.setenv("no_proxy", "mlflow.invalid")
        with pytest.raises(BadInput, match="no MLflow server answers at"):
            mlflow_store.check(uri)


@pytest.mark.parametrize("how", ["503", "cut"])
def test_what_is_made_is_made_once_though_answers_are_lost(
    server: str,
    begin: Callable[..., StudyScheduler],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    for wait in ("FACTOR", "JITTER"):  # of MLflow's client, between a request and its repetition
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_BACKOFF_{wait}", "0")
    client = MlflowClient(server)
    with losing(server, how) as proxy:
        runs = MlflowRuns(proxy.uri, experiment=f"lost {how}", artifacts=tmp_path)
        tracking = MlflowWriter(runs, "one")
        tracking.begin(SPACE, PROTOCOL, [])
        records = play_all(begin(tracking), most=3).journal.records
        models = list(records)[:1]
        tracking.finish(
            "verdict", "models", "table", {"lora.test.overall_percent": 50.0}, [], models, cards
        )
        assert tracking.error == ""
        found = client.search_runs([runs.experiment_id])
        trials = Counter(run.data.tags.get("trial", "study") for run in found)
        assert trials == Counter(["study", *records])
        version = runs.register(tracking.children[models[0]], f"lost-{how}", {}, "better")
        assert version == f"models:/lost-{how}/1"
    assert len(client.search_model_versions(f"name = 'lost-{how}'")) == 1
    asked = {f"runs/{verb}" for verb in ("create", "log-batch", "log-inputs", "update", "set-tag")}
    made = {f"{kind}/create" for kind in ("experiments", "registered-models", "model-versions")}
    assert asked | made <= set(proxy.lost), proxy.lost
    for run in found:
        assert run.info.status in ("FINISHED", "KILLED")
        names = [i.dataset.name for i in run.inputs.dataset_inputs]
        assert names and len(names) == len(set(names))
        if "trial" in run.data.tags:
            history = client.get_metric_history(run.info.run_id, "validation_loss")
            rungs = records[run.data.tags["trial"]].rungs
            assert [m.step for m in history] == [rung.examples_seen for rung in rungs]
