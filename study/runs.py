"""The runs of studies in MLflow: where they are kept, which is whose, and what one may hold.

An experiment a space, a parent run a study, a child run a trial. They are found by their tags, so
that a study that goes on, on whatever machine, goes on in the runs that it began.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode, urlsplit

from study import database, once
from study.records import Kind, TrialRecord
from trainables.errors import BadInput
from trainables.secrecy import shown, without_user

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

MODEL = "model"
"""Folder of a confirmed trial's model among the files of its run."""
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")
QUESTION = "search?max_results=1"
"""That a server answers to everybody whom it lets in."""


def check(uri: str) -> None:
    """See that a store of this kind exists, and that a server answers and lets this user in, before
    anything is started.

    Raises:
        BadInput: it is not so.
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
    """Ask a server by MLflow's client.

    Raises:
        BadInput: it does not let this user in, or does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise _unusable(uri, error) from None


def probe(uri: str, artifacts: Path) -> float:
    """Make a run with a metric and a file, read both back, and delete it: the seconds it took.

    Raises:
        BadInput: one of these fails.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    runs = Runs(uri, experiment="doctor", artifacts=artifacts)  # a new database is made here
    client = runs.client
    try:
        began = time.monotonic()
        run = runs.begin_study(uuid.uuid4().hex, "")
        client.log_metric(run, "probe", 1.0)
        client.log_text(run, "probe", "probe.txt")
        if client.get_run(run).data.metrics != {"probe": 1.0}:
            raise BadInput(f"--tracking-uri {shown(uri)} keeps no metric")
        with tempfile.TemporaryDirectory() as folder:
            file = client.download_artifacts(run, "probe.txt", folder)
            if Path(file).read_text(encoding="utf-8") != "probe":
                raise BadInput(f"--tracking-uri {shown(uri)} keeps no file")
        client.delete_run(run)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise _unusable(uri, error) from None
    return time.monotonic() - began


class Runs:
    """The runs of one experiment."""

    def __init__(self, uri: str, *, experiment: str, artifacts: Path) -> None:
        """Connect, and find or make the experiment.

        Args:
            uri: of an MLflow server or database.
            artifacts: folder for a local store's files; a server has its own.

        Raises:
            BadInput: the store cannot be reached or written.
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        # MLflow's bars for files would run through the view of the study.
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        # Nor is each run's address printed when it ends, with the password in it.
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        self.uri = uri
        database.prepare(uri)
        try:
            self.client = MlflowClient(tracking_uri=uri)
            served = uri.startswith(("http:", "https:"))
            local = None if served else artifacts.resolve().as_uri()
            self.experiment_id = once.experiment(self.client, experiment, local)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise _unusable(uri, error) from None

    def study(self, name: str, identity: str) -> Run | None:
        """The parent run of a study, if it has one: on a server that many use, several studies may
        have its name. One without identity is found by its name."""
        who = f"tags.identity = '{identity}'" if identity else f"tags.study = '{name}'"
        return _first(self._search(f"{who} and tags.kind = 'study'"))

    def trials(self, parent_id: str) -> dict[str, Run]:
        """The child runs by trial id."""
        children: dict[str, list[Run]] = {}
        for run in self._search(f"tags.`mlflow.parentRunId` = '{parent_id}'"):
            children.setdefault(run.data.tags["trial"], []).append(run)
        return {trial: min(runs, key=_rank) for trial, runs in children.items()}

    def begin_study(self, name: str, identity: str) -> str:
        """A parent run for a study, or the one that it has, running again; its id.

        Raises:
            BadInput: this user may read runs and not write them.
        """
        from mlflow.exceptions import MlflowException

        try:
            if (found := self.study(name, identity)) is not None:
                self.client.update_run(found.info.run_id, status="RUNNING")
                return str(found.info.run_id)
            tags = {"study": name, "identity": identity, "kind": "study"}
            return once.run(
                self.client,
                self.experiment_id,
                name=name,
                tags=tags,
                find=lambda: _id(self.study(name, identity)),
            )
        except MlflowException as error:
            raise _unusable(self.uri, error) from None

    def begin_trial(self, record: TrialRecord, parent_id: str) -> str:
        """A child run for a trial that has none; its id."""
        spec = record.spec
        tags = {
            "mlflow.parentRunId": parent_id,
            "trial": spec.id,
            "kind": str(spec.kind),
            "arm": spec.arm,
            **record.ran,
        }
        there = f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.trial = '{spec.id}'"
        return once.run(
            self.client,
            self.experiment_id,
            name=_name(record),
            tags=tags,
            find=lambda: _id(_first(self._search(there))),
            began=record.started_at,
        )

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write to a run, in one request; none if there is nothing to write."""
        from mlflow.entities import Param, RunTag

        if metrics or params or tags:
            self.client.log_batch(
                run_id,
                metrics=metrics,
                params=[Param(k, str(v)) for k, v in (params or {}).items()],
                tags=[RunTag(k, v) for k, v in (tags or {}).items()],
            )

    def holds_model(self, run_id: str) -> bool:
        """Whether the files of a run have a whole model among them."""
        return MODEL in self.client.get_run(run_id).data.tags

    def log_model(self, run_id: str, folder: Path) -> None:
        """Put a model that ``study.export`` wrote among the files of a run."""
        self.client.log_artifacts(run_id, str(folder), MODEL)
        # Last: files that a kill left unfinished are written again.
        self.client.set_tag(run_id, MODEL, MODEL)

    def register(self, run_id: str, name: str, tags: Mapping[str, str], description: str) -> str:
        """Make a run's model a version of the registered model ``name``; that version's address.

        A run that is one already stays it.
        """
        version = once.model_version(
            self.client,
            name,
            source=f"runs:/{run_id}/{MODEL}",
            run_id=run_id,
            tags=tags,
            description=description,
        )
        return f"models:/{name}/{version}"

    def comparison(self, parent_id: str) -> str:
        """The address, on a server, of MLflow's page that compares a study's confirmed runs; empty
        if there are none."""
        confirmed = [
            run.info.run_id
            for run in self.trials(parent_id).values()
            if run.data.tags["kind"] == Kind.CONFIRM
        ]
        asked = {"runs": json.dumps(confirmed), "experiments": json.dumps([self.experiment_id])}
        return f"/#/compare-runs?{urlencode(asked)}" if confirmed else ""

    def page(self, run_id: str) -> str:
        """The address, on a server, of MLflow's page on a run."""
        return f"/#/experiments/{self.experiment_id}/runs/{run_id}"

    def _search(self, condition: str) -> list[Run]:
        found: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], condition, max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found


def _first(runs: Sequence[Run]) -> Run | None:
    """The one to go on in, of those that an earlier version of this project made twice."""
    return min(runs, key=_rank, default=None)


def _rank(run: Run) -> tuple[bool, bool, int, str]:
    """What was written to comes first, then what has ended, then the oldest."""
    empty = not (run.data.params or run.data.metrics)
    return empty, run.info.status == "RUNNING", run.info.start_time, run.info.run_id


def _id(run: Run | None) -> str | None:
    return None if run is None else str(run.info.run_id)


def _name(record: TrialRecord) -> str:
    spec = record.spec
    if spec.kind is Kind.SEARCH:
        return f"{spec.arm}-{spec.id}"
    return "untuned" if spec.kind is Kind.UNTUNED else f"{spec.arm}-confirm-seed{spec.seed}"


def _unusable(uri: str, error: Exception) -> BadInput:
    line = str(error).strip().splitlines()[0]
    if database.is_between(uri, error):
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
