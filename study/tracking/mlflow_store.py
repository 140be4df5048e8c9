"""The MLflow store of a study: its address, and a check that it answers."""

from __future__ import annotations

import base64
import os
import socket
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from study.tracking import mlflow_database
from trainables.errors import BadInput
from trainables.secrecy import shown, without_user

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")
"""Prefixes, of which the scheme of a store's address must have one."""
QUESTION = "search?max_results=1"
"""Request that a server answers to every user that it lets in."""


def check(uri: str) -> None:
    """Check, before anything is started, that a store of this kind exists, and that a server
    answers and lets this user in.

    Raises:
        BadInput: one of these does not hold.
    """
    parts = urlsplit(uri)
    if not parts.scheme.startswith(SCHEMES):
        raise BadInput(f"--tracking-uri {shown(uri)} must begin with one of: {', '.join(SCHEMES)}")
    if parts.scheme in ("http", "https"):
        try:
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        except ValueError:
            raise BadInput(
                f"--tracking-uri {shown(uri)} has no port that is a number; in a password write "
                "'/' as %2F, '?' as %3F, '#' as %23 and '@' as %40"
            ) from None
        try:
            socket.create_connection((parts.hostname or "", port), timeout=5).close()
        except OSError as error:
            raise BadInput(
                f"no MLflow server answers at --tracking-uri {shown(uri)}: {error}"
            ) from None
        if not _is_open(uri):
            _ask(uri)


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

    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise unusable(uri, error) from None


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


STORE = "mlflow.db"
"""File name of a local store's database."""
ARTIFACTS = "mlflow-artifacts"
"""Folder name of a local store's artifacts, beside its database."""


def default_uri(storage: Path) -> str:
    """Address of the MLflow store inside a storage folder."""
    return f"sqlite:///{(storage / STORE).resolve()}"
