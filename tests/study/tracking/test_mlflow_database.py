"""MLflow's database, and processes that are killed while they make it."""

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
from alembic import command
from mlflow import MlflowClient
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
from mlflow.store.tracking.dbmodels.initial_models import Base
from sqlalchemy import create_engine

from study.storage.paths import MLFLOW_ARTIFACTS, MLFLOW_DATABASE
from study.tracking import mlflow_database, mlflow_store
from study.tracking.mlflow_runs import MlflowRuns
from trainables.errors import BadInput

EARLIER = "a8b9c0d1e2f3"
"""A revision of MLflow's tables before those of the version that is installed."""


def start(folder: Path, experiment: str = "one") -> MlflowRuns:
    """As every command of this project that opens MLflow does."""
    return MlflowRuns(
        mlflow_store.default_uri(folder),
        experiment=experiment,
        artifacts=folder / MLFLOW_ARTIFACTS,
    )


def plain(folder: Path) -> None:
    """MLflow as it makes its database itself, and a run in it."""
    client = MlflowClient(mlflow_store.default_uri(folder))
    client.create_run("0", run_name="of another program")


def beside(work: Callable[[Path], object], folder: Path) -> ForkProcess:
    """A process that does it. Forked, since importing MLflow takes seconds."""
    process = multiprocessing.get_context("fork").Process(target=work, args=(folder,))
    process.start()
    return process


def largest(folder: Path) -> int:
    """Bytes of the largest file; those beside a database come and go."""
    sizes = [0]
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            sizes.append(file.stat().st_size)
    return max(sizes)


def wait_for(process: ForkProcess, folder: Path, size: int) -> None:
    """Until the file that it makes has ``size`` bytes."""
    give_up = time.monotonic() + 60
    while largest(folder) < size:
        assert process.is_alive() and time.monotonic() < give_up
        time.sleep(0.002)


def kill(process: ForkProcess, folder: Path, size: int) -> None:
    """As soon as the file that it makes has ``size`` bytes."""
    wait_for(process, folder, size)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was done before"


def see_whole(folder: Path) -> None:
    """Records can be written, and nothing else was left in the folder."""
    runs = start(folder)
    runs.client.create_run(runs.experiment_id)
    with closing(sqlite3.connect(folder / MLFLOW_DATABASE)) as opened:
        (revision,) = opened.execute("SELECT version_num FROM alembic_version").fetchone()
        assert revision == _get_latest_schema_revision()
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [path.name for path in folder.iterdir()] == [MLFLOW_DATABASE]


def test_a_start_that_is_killed_leaves_nothing_that_stops_the_next(tmp_path: Path) -> None:
    kill(beside(start, tmp_path), tmp_path, 500_000)
    assert not (tmp_path / MLFLOW_DATABASE).exists()
    see_whole(tmp_path)


@pytest.mark.parametrize("size", [300_000, 700_000])
def test_a_database_that_mlflow_left_half_made_is_made_anew(tmp_path: Path, size: int) -> None:
    kill(beside(plain, tmp_path), tmp_path, size)
    old = time.time() - 2 * mlflow_database.QUIET_SECONDS
    os.utime(tmp_path / MLFLOW_DATABASE, (old, old))
    see_whole(tmp_path)


def test_a_database_that_another_program_is_making_is_waited_for(tmp_path: Path) -> None:
    process = beside(plain, tmp_path)
    wait_for(process, tmp_path, 300_000)
    runs = start(tmp_path)
    process.join()
    assert process.exitcode == 0
    (run,) = runs.client.search_runs(["0"])
    assert run.info.run_name == "of another program"


def test_processes_that_start_at_once_make_one_database(tmp_path: Path) -> None:
    def writes(folder: Path) -> None:
        runs = start(folder)
        runs.client.create_run(runs.experiment_id)

    processes = [beside(writes, tmp_path) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    runs = start(tmp_path)
    assert len(runs.client.search_runs([runs.experiment_id])) == 3
    see_whole(tmp_path)


def earlier(file: Path) -> None:
    """A database of an earlier MLflow, with a run."""
    engine = create_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    config = _get_alembic_config(f"sqlite:///{file}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, EARLIER)
    engine.dispose()
    with closing(sqlite3.connect(file)) as opened, opened:
        opened.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
            "VALUES (0, 'Default', 'file:///nowhere', 'active')"
        )
        opened.execute(
            "INSERT INTO runs (run_uuid, name, experiment_id, user_id, status, lifecycle_stage, "
            "start_time, artifact_uri) "
            "VALUES ('5eed', 'kept', 0, 'me', 'FINISHED', 'active', 1, 'file:///nowhere')"
        )


def test_a_database_of_an_earlier_mlflow_keeps_its_runs(tmp_path: Path) -> None:
    earlier(tmp_path / MLFLOW_DATABASE)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / MLFLOW_DATABASE).write_bytes((tmp_path / MLFLOW_DATABASE).read_bytes())
    assert start(tmp_path).client.get_run("5eed").info.run_name == "kept"
    # As a kill in the middle of that leaves it: one of two new tables is there.
    with closing(sqlite3.connect(copy / MLFLOW_DATABASE)) as opened, opened:
        opened.execute("CREATE TABLE scheduler_leases (x)")
    for _ in range(2):
        with pytest.raises(BadInput, match="this MLflow's was killed"):
            start(copy)
    with closing(sqlite3.connect(copy / MLFLOW_DATABASE)) as opened:
        assert opened.execute("SELECT run_uuid FROM runs").fetchall() == [("5eed",)]


def test_what_is_not_mlflows_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as opened:
        opened.execute("CREATE TABLE studies (x)")
    before = other.read_bytes()
    for uri in (f"sqlite:///{other}", "sqlite://", "sqlite:///:memory:", "http://127.0.0.1:9"):
        mlflow_database.prepare(uri)
    assert other.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be made"):
        mlflow_database.prepare(f"sqlite:///{tmp_path}/file/x.db")


def test_a_whole_database_costs_a_start_no_time(tmp_path: Path) -> None:
    start(tmp_path)
    began = time.monotonic()
    for _ in range(20):
        mlflow_database.prepare(mlflow_store.default_uri(tmp_path))
    assert time.monotonic() - began < 1.0
