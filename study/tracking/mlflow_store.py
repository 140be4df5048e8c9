"""The MLflow store of a study: its address, and a check that it is there and answers."""

from __future__ import annotations

import base64
import importlib.util
import os
import socket
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from study.storage.object_store import is_store
from study.storage.paths import MLFLOW_DATABASE, real_path
from study.tracking import mlflow_database
from trainables.errors import BadInput
from trainables.secrecy import CUT, shown, without_user

PORTS = {
    "sqlite": None,
    "http": 80,
    "https": 443,
    "postgresql": 5432,
    "mysql": 3306,
    "mssql": 1433,
}
"""Kind of a store, which is the scheme of its address up to a ``+`` -> port of its server, if the
address names none."""
PACKAGES = {
    "MySQLdb": "mysqlclient",
    "mysql": "mysql-connector-python",
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
}
"""Module of a database's driver -> package that has it, where that has another name."""
DRIVERS = {
    "postgresql": ("psycopg2", "psycopg", "pg8000"),
    "mysql": ("pymysql",),
    "mssql": ("pyodbc", "pymssql"),
}
"""Kind of a database -> drivers that an address may name, each called as its module."""
WAIT_SECONDS = 5
"""Seconds to wait until a server takes a connection."""
VARIABLE = "MLFLOW_TRACKING_URI"
"""Environment variable with the address of a store, which MLflow's own programs read too."""
QUESTION = "search?max_results=1"
"""Request that a server answers to every user that it lets in."""


def is_server(uri: str) -> bool:
    """Whether an address is that of an MLflow server, and not of a database."""
    return uri.startswith(("http:", "https:"))


def check(uri: str) -> None:
    """Check, before anything is started and without writing, that a store of this kind exists, that
    the driver of its database is installed, and that a server answers and lets this user in.

    Raises:
        BadInput: one of these does not hold.
    """
    scheme = uri.partition(":")[0]
    kind, _, driver = scheme.partition("+")
    if kind not in PORTS or (driver and kind in ("http", "https")):
        raise BadInput(f"--tracking-uri {shown(uri)} must begin with one of: {', '.join(PORTS)}")
    if kind in ("http", "https"):
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _unreadable(uri, error) from None
        _reach(uri, "MLflow server", *_proxy(kind, host, port) or (host or "", port or PORTS[kind]))
        if not _is_open(uri):
            _ask(uri)
        return
    if kind == "sqlite":
        _check_file(uri)
    if not uri.startswith("sqlite:///"):  # a file, whose driver comes with Python
        _check_database(uri, kind)


def _check_file(uri: str) -> None:
    """See that the address of an SQLite database names a file, or one that can be.

    Raises:
        BadInput: it names memory, or something that is no file.
    """
    name = uri.partition(":")[2].lstrip("/").partition("?")[0]
    if name in ("", ":memory:") or "mode=memory" in uri:
        raise BadInput(
            f"--tracking-uri {shown(uri)} names no file: what is in memory would be lost when the "
            "study ends; give one, as sqlite:///mlflow.db"
        )
    file = mlflow_database.sqlite_file(uri)
    if file is not None and file.exists() and not file.is_file():
        raise BadInput(f"--tracking-uri {shown(uri)} cannot be used: {file} is no file")


def _unreadable(uri: str, error: Exception) -> BadInput:
    """Error for a text that is no address."""
    number = isinstance(error, ValueError | OverflowError)
    lacks = "has no port that is a number" if number else "is no address"
    return BadInput(
        f"--tracking-uri {shown(uri)} {lacks}; in a password write "
        "'/' as %2F, '?' as %3F, '#' as %23 and '@' as %40"
    )


def _proxy(kind: str, host: str | None, port: int | None) -> tuple[str, int] | None:
    """Host and port of the proxy (``http_proxy``, ``https_proxy``) through which MLflow's client
    reaches a server; None if it needs none. The name of the server may be known to the proxy alone.
    """
    proxy = urllib.request.getproxies().get(kind)
    if not proxy or urllib.request.proxy_bypass(f"{host}:{port}" if port else host or ""):
        return None
    with suppress(ValueError):  # it is no address: MLflow's client says so
        parts = urlsplit(proxy if "://" in proxy else f"//{proxy}")
        if parts.hostname:
            return parts.hostname, parts.port or PORTS.get(parts.scheme) or 80
    return None


def _reach(uri: str, what: str, host: str, port: int | None) -> None:
    """See that a server takes connections.

    Raises:
        BadInput: it does not.
    """
    try:
        socket.create_connection((host, port), timeout=WAIT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # a name with an empty part, or a port above 65535
        raise BadInput(f"no {what} answers at --tracking-uri {shown(uri)}: {error}") from None
    except OverflowError as error:
        raise _unreadable(uri, error) from None


def _check_database(uri: str, kind: str) -> None:
    """See that a database has an installed driver, answers and lets this user in.

    Raises:
        BadInput: one of these does not hold.
    """
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.pool import NullPool

    try:
        url = make_url(uri)
    except (ArgumentError, ValueError) as error:
        raise _unreadable(uri, error) from None
    try:
        dialect = url.get_dialect()
        module = dialect.import_dbapi()
    except ArgumentError:
        raise BadInput(
            f"--tracking-uri {shown(uri)} names a driver that SQLAlchemy does not know; {kind}:// "
            "alone takes its usual one"
        ) from None
    except ImportError as error:
        raise _lacks_driver(uri, kind, error) from None
    if dialect.is_async:
        raise BadInput(
            f"--tracking-uri {shown(uri)} names an asynchronous driver, which MLflow cannot use; "
            f"{kind}:// alone takes a usual one"
        )
    if url.host and kind != "sqlite":
        _reach(uri, f"{kind} server", url.host, url.port or PORTS[kind])
    patience = {"connect_timeout": WAIT_SECONDS}
    of_driver = patience if dialect.driver in ("psycopg", "psycopg2", "pymysql", "mysqldb") else {}
    try:
        engine = create_engine(url, poolclass=NullPool, connect_args=of_driver, module=module)
        if kind != "sqlite":  # which would make a file
            engine.connect().close()
    except Exception as error:  # each driver has errors of its own
        raise unusable(uri, error) from None


def _lacks_driver(uri: str, kind: str, error: ImportError) -> BadInput:
    """The error of a driver that is not installed, with what to do."""
    name = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError):  # it lacks a library of the system, say
        return BadInput(f"--tracking-uri {shown(uri)} cannot be used: {error}")
    package = PACKAGES.get(name, name)
    here = next((d for d in DRIVERS.get(kind, ()) if importlib.util.find_spec(d)), None)
    instead = f", or write {kind}+{here}://, whose driver is installed" if here else ""
    return BadInput(
        f"--tracking-uri {shown(uri)} needs the package {package}, which is not installed: "
        f"pip install '{package}'{instead}"
    )


def _is_open(uri: str) -> bool:
    """Whether a server answers a question of this user, who has a password at most. MLflow's client
    knows other ways to be let in and asks again when a server stumbles, but takes seconds to
    import: it is asked if this fails."""
    server, parts = without_user(uri).rstrip("/"), urlsplit(uri)
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/experiments/{QUESTION}")
    # As MLflow's client does it: who stands in the address goes before who stands elsewhere.
    name, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not name:
        name = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if name:
        word = base64.b64encode(f"{name}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _ask(uri: str) -> None:
    """Make a request through MLflow's client.

    Raises:
        BadInput: the server does not let this user in, or does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    # MLflow itself waits for 18 minutes for a server that takes a request and says nothing.
    patience = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
    lacking = [name for name in patience if name not in os.environ]
    try:
        os.environ.update({name: patience[name] for name in lacking})
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise unusable(uri, error) from None
    finally:
        for name in lacking:
            del os.environ[name]


def unusable(uri: str, error: Exception) -> BadInput:
    """The error, in one line, of a store that cannot be used."""
    line = str(error).strip().splitlines()[0]
    if mlflow_database.is_between(uri, error):
        line = (
            "an upgrade of its tables to this MLflow's was killed; it may hold runs, so it is left "
            "as it is: put a copy from before the upgrade in its place, or move it away"
        )
    if "error code 401" in line:
        line = (
            "it does not let this user in; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
            "say who asks"
        )
    return BadInput(f"--tracking-uri {shown(uri)} cannot be used: {line}")


def named_store(tracking_uri: str | None) -> str | None:
    """Address of the MLflow store that the user named: by ``--tracking-uri`` or else by the
    environment, which is printed. None if by neither."""
    if tracking_uri is None and (named := os.environ.get(VARIABLE)):
        print(f"MLflow is {shown(named)}, as {VARIABLE} says", flush=True)
        return named
    return tracking_uri


def default_uri(storage: Path) -> str:
    """Address of the MLflow store inside a storage folder."""
    return f"sqlite:///{real_path(storage / MLFLOW_DATABASE)}"


def noted(uri: str, storage: Path) -> str:
    """The address of a store as a study in the folder ``storage`` notes it: without secrets and, of
    a server, without the user; a file's is absolute. The store of the folder itself has an empty
    one, so that the folder can be moved."""
    if is_server(uri):
        with suppress(ValueError):  # it is no address
            return shown(without_user(uri).rstrip("/"))
    file = mlflow_database.sqlite_file(uri)
    if file is None:
        return shown(uri)
    own = real_path(storage / MLFLOW_DATABASE)
    return "" if file == own else f"sqlite:///{file}"


def usable(address: str, storage: Path, known: Iterable[str | None]) -> str | None:
    """The address of a store of which ``noted`` gave ``address``, to open it. ``known`` are
    addresses that the user gave, of which one may have the secrets that were left out. None if they
    are needed and none has them."""
    for uri in known:
        if uri and noted(uri, storage) == address:
            return uri
    if not address:
        return default_uri(storage)
    return None if CUT in address else address


def tracking_address(storage: str, tracking_uri: str | None) -> str:
    """Address of the MLflow store for the studies in ``--storage``: ``tracking_uri`` or, if that is
    None, the store inside the folder.

    Raises:
        BadInput: the studies are in an object store, which can hold no database.
    """
    if tracking_uri:
        return tracking_uri
    if is_store(storage):
        raise BadInput(
            f"--storage {storage} wants --tracking-uri too: MLflow's own database cannot "
            "lie in an object store"
        )
    return default_uri(Path(storage))
