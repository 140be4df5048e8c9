"""Addresses of MLflow's stores, and what can be known of them before anything is started."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.launch import main
from study.tracking import mlflow_store
from trainables.errors import BadInput

SILENT, CLOSED = "127.0.0.1:{silent}", "127.0.0.1:1"


@pytest.fixture
def silent() -> Iterator[int]:
    """Port of a server that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("scheme", "module", "said"),
    [
        ("mysql", "MySQLdb", "needs the package mysqlclient, which"),
        ("mysql+pymysql", "pymysql", "needs the package pymysql, which"),
        ("mssql+pyodbc", "pyodbc", "needs the package pyodbc, which"),
        ("postgresql", "psycopg", r"install 'psycopg\[binary\]', or write postgresql\+psycopg2://"),
        ("postgresql+asyncpg", "asyncpg", "needs the package asyncpg, which"),
    ],
)
def test_a_driver_that_is_not_installed_is_named(scheme: str, module: str, said: str) -> None:
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    with pytest.raises(BadInput, match=said) as error:
        mlflow_store.check(f"{scheme}://mlflow:planted@{CLOSED}/mlflow")
    assert "\n" not in str(error.value) and "planted" not in str(error.value)


def test_a_study_with_such_a_driver_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, uri = tmp_path / "studies", "mysql+mysqlconnector://mlflow:planted@host/mlflow"
    options = ["--space", "smoke", "--storage", str(storage), "--tracking-uri", uri]
    assert main(options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "mlflow:***@host/mlflow needs the package mysql-connector-python" in line
    assert not storage.exists()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (f"http://u:planted@{CLOSED}", "no MLflow server answers at"),
        ("http://u:planted@..:5", "no MLflow server answers at"),
        (f"postgresql+psycopg2://u:planted@{CLOSED}/x", "no postgresql server answers at"),
        ("postgresql+psycopg2://u:planted@/x?host=/no/where", "cannot be used: .* /?.*no/where"),
        (f"postgresql+psycopg2://u:planted@{SILENT}/x", "cannot be used: .*timeout expired"),
        ("http://u:planted@[::1", "has no port that is a number"),
        ("postgresql+psycopg2://u:planted@h:port/x", "has no port that is a number"),
        ("postgresql+nosuch://u:planted@h/x", "names a driver that SQLAlchemy does not know"),
        ("https+x://u:planted@h", "must begin with one of: sqlite"),
        ("postgresqlx://u:planted@h", "must begin with one of: sqlite"),
        ("sqlite://u:planted@h/x.db", "cannot be used: Invalid SQLite URL"),
        ("sqlite:x.db", "is no address"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(uri: str, said: str, silent: int) -> None:
    if "psycopg2" in uri:
        pytest.importorskip("psycopg2")
    with pytest.raises(BadInput, match=said) as error:
        mlflow_store.check(uri.format(silent=silent))
    assert "\n" not in str(error.value) and "planted" not in str(error.value)


@pytest.mark.parametrize("uri", ["sqlite:////no/where/x.db", "sqlite:///x.db"])
def test_a_file_is_not_made_by_looking(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow_store.check(uri)
    assert list(tmp_path.iterdir()) == []
