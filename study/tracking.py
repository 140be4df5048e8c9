"""Records a study in MLflow: a parent run for the study, a child run for each trial.

Runs are found by tags before they are made, and metrics carry the time at which they were
reported, so what was written already is not written twice when a study is resumed. A thread of its
own writes, off the study's critical path, what happened within a second in as few requests as there
can be; if the server fails in mid-study, the study goes on, and resuming it writes what is missing.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from study.records import Kind, Outcome, Rung, TrialRecord
from trainables.errors import BadInput

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

GATHER_SECONDS = 1.0
"""How long news is gathered before it is written."""
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")
STATUS = {
    Outcome.COMPLETE: "FINISHED",
    Outcome.PRUNED: "KILLED",
    Outcome.DIVERGED: "FAILED",
    Outcome.OUT_OF_MEMORY: "FAILED",
    Outcome.FAILED: "FAILED",
}


def check(uri: str) -> None:
    """See that a store of this kind exists and that a server answers, before anything is started.

    Raises:
        BadInput: neither.
    """
    parts = urlsplit(uri)
    if not parts.scheme.startswith(SCHEMES):
        raise BadInput(f"--tracking-uri {uri} must begin with one of: {', '.join(SCHEMES)}")
    if parts.scheme in ("http", "https"):
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        try:
            socket.create_connection((parts.hostname or "", port), timeout=5).close()
        except OSError as error:
            raise BadInput(f"no MLflow server answers at --tracking-uri {uri}: {error}") from None


def probe(uri: str, artifacts: Path) -> float:
    """Make a run with a metric and a file, read both back, and delete it: the seconds it took.

    Raises:
        BadInput: one of these fails.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, uri, "doctor", artifacts)  # a new database is made here
        began = time.monotonic()
        run = client.create_run(experiment).info
        client.log_metric(run.run_id, "probe", 1.0)
        client.log_text(run.run_id, "probe", "probe.txt")
        if client.get_run(run.run_id).data.metrics != {"probe": 1.0}:
            raise BadInput(f"--tracking-uri {uri} keeps no metric")
        with tempfile.TemporaryDirectory() as folder:
            file = client.download_artifacts(run.run_id, "probe.txt", folder)
            if Path(file).read_text(encoding="utf-8") != "probe":
                raise BadInput(f"--tracking-uri {uri} keeps no file")
        client.delete_run(run.run_id)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        line = str(error).strip().splitlines()[0]
        raise BadInput(f"--tracking-uri {uri} cannot be used: {line}") from None
    return time.monotonic() - began


class Tracking:
    """The study's pen for MLflow. An observer of the conductor."""

    def __init__(self, uri: str, *, experiment: str, study: str, artifacts: Path) -> None:
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

        # On a new database MLflow tells of each migration, which says nothing to a user.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self.uri, self.study = uri, study
        self.parent_id, self.runs = "", dict[str, str]()
        self.whole: set[str] = set()
        """Trials of which all was written before a restart."""
        self.written: dict[str, int] = {}
        """Trial -> rungs that were written."""
        try:
            self.client = MlflowClient(tracking_uri=uri)
            self.experiment_id = _experiment(self.client, uri, experiment, artifacts)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            line = str(error).strip().splitlines()[0]
            raise BadInput(f"--tracking-uri {uri} cannot be used: {line}") from None
        self.error = ""
        """Why writing stopped, if it did."""
        self._news: queue.Queue[_News | Callable[[], object] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    def begin(
        self, question: str, protocol: Mapping[str, Any], records: Iterable[TrialRecord]
    ) -> None:
        """Find or make the study's run, and write what of earlier records is missing.

        ``protocol`` is what ``study.protocol`` describes.
        """
        self.parent_id, self.runs, self.whole = self._find(self.study)
        # MLflow's parameters can never change; what does when a study goes on elsewhere is a tag.
        changing = {name: protocol[name] for name in ("versions", "commit", "command", "begun")}
        fixed = {name: value for name, value in protocol.items() if name not in changing}
        tags = {
            "question": question,
            "mlflow.source.name": "study.launch",
            "mlflow.source.git.commit": protocol["commit"],
        }
        changed = tags | _flat(changing)
        self._news.put(lambda: self._log(self.parent_id, params=_flat(fixed), tags=changed))
        for record in records:
            if record.spec.id not in self.whole:
                self._news.put(_News(record=record, ended=record.outcome is not None))

    def started(self, record: TrialRecord) -> None:
        """A child run for the trial."""
        self._news.put(_News(record=record, ended=False))

    def reported(self, record: TrialRecord) -> None:
        """The losses of the last rung."""
        self._news.put(_News(record=record, ended=False))

    def ended(self, record: TrialRecord) -> None:
        """Outcome, costs and scores."""
        self._news.put(_News(record=record, ended=True))

    def finish(self, verdict: str, metrics: Mapping[str, float], files: Iterable[Path]) -> None:
        """Write the study's results, wait until all is written, and stop."""

        def last() -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            self._log(self.parent_id, metrics=[Metric(k, v, now, 0) for k, v in metrics.items()])
            self.client.set_tag(self.parent_id, "mlflow.note.content", verdict)
            for file in files:
                self.client.log_artifact(self.parent_id, str(file))
            self.client.set_terminated(self.parent_id, "FINISHED")

        self._news.put(last)
        self.close()

    def close(self) -> None:
        """Wait until all is written, and stop."""
        self._news.put(None)
        self._thread.join()

    # What follows runs in the writing thread, except _find and _search.

    def _write(self) -> None:
        going_on = True
        while going_on:
            trials: dict[str, _News] = {}
            for news in self._gathered():
                if isinstance(news, _News):
                    known = trials.get(news.record.spec.id)
                    trials[news.record.spec.id] = news if known is None or news.ended else known
                    continue
                for trial in trials.values():
                    self._try(lambda trial=trial: self._trial(trial))  # type: ignore[misc]
                trials = {}
                going_on = news is not None
                if news is not None:
                    self._try(news)
            for trial in trials.values():
                self._try(lambda trial=trial: self._trial(trial))  # type: ignore[misc]

    def _gathered(self) -> Iterator[_News | Callable[[], object] | None]:
        """What there is to write, in order, once a second; None is the last."""
        news = self._news.get()
        until = time.monotonic() + GATHER_SECONDS
        while True:
            yield news
            if news is None:
                return
            try:
                news = self._news.get(timeout=max(until - time.monotonic(), 0.0))
            except queue.Empty:
                return

    def _try(self, work: Callable[[], object]) -> None:
        if self.error:
            return  # MLflow's client has tried for minutes: the rest is written on resume
        try:
            work()
        except Exception as error:  # a lost server must not end a study that can be resumed
            self.error = f"{type(error).__name__}: {error}".splitlines()[0]

    def _find(self, study: str) -> tuple[str, dict[str, str], set[str]]:
        """The parent run, found or made; the child runs by trial id; trials that are whole."""
        parents = self._search(f"tags.study = '{study}' and tags.kind = 'study'")
        if parents:
            parent = parents[0].info.run_id
            self.client.update_run(parent, status="RUNNING")
        else:
            tags = {"study": study, "kind": "study"}
            made = self.client.create_run(self.experiment_id, tags=tags, run_name=study)
            parent = made.info.run_id
        children = self._search(f"tags.`mlflow.parentRunId` = '{parent}'")
        runs = {run.data.tags["trial"]: run.info.run_id for run in children}
        ended = {r.data.tags["trial"] for r in children if r.info.status != "RUNNING"}
        return parent, runs, ended

    def _search(self, condition: str) -> list[Any]:
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], condition, max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def _trial(self, news: _News) -> None:
        """What is not written yet of a trial, in one request."""
        from mlflow.entities import Metric

        record, spec = news.record, news.record.spec
        parameters, tags = dict[str, Any](), dict[str, str]()
        if spec.id not in self.runs:
            self.runs[spec.id] = self._begin(record)
        if spec.id not in self.written:  # after a restart they may be there already: no harm
            parameters = {
                "arm": spec.arm,
                "lr": spec.lr,
                **spec.parameters,
                **{f"recipe.{s}": _recipe(t) for s, t in spec.recipe.items()},
                "seed": spec.seed,
                "max_examples": spec.max_examples,
                "batch_size": spec.batch_size,
            }
        reported = record.rungs[self.written.get(spec.id, 0) :]
        metrics = [metric for rung in reported for metric in _losses(rung)]
        ended = int((record.ended_at or 0.0) * 1000)
        if news.ended:
            assert record.outcome is not None
            scores = {f"{k}_percent": v for k, v in record.scores.items() if v == v}
            values = {**record.costs, **scores, "examples_seen": record.examples_seen}
            metrics += [Metric(k, v, ended, record.examples_seen) for k, v in values.items()]
            said = {"outcome": record.outcome, "error": record.error, "remark": record.remark}
            tags = said | record.ran
        self._log(self.runs[spec.id], metrics=metrics, params=parameters, tags=tags)
        self.written[spec.id] = self.written.get(spec.id, 0) + len(reported)
        if news.ended and record.outcome is not None:
            self.client.set_terminated(self.runs[spec.id], STATUS[record.outcome], ended)

    def _begin(self, record: TrialRecord) -> str:
        spec = record.spec
        tags = {
            "mlflow.parentRunId": self.parent_id,
            "trial": spec.id,
            "kind": str(spec.kind),
            "arm": spec.arm,
            **record.ran,
        }
        name = f"{spec.arm}-{spec.id}" if spec.kind is Kind.SEARCH else _confirm_name(record)
        start = int(record.started_at * 1000)
        made = self.client.create_run(self.experiment_id, start, tags, run_name=name)
        return str(made.info.run_id)

    def _log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Param, RunTag

        if metrics or params or tags:
            self.client.log_batch(
                run_id,
                metrics=metrics,
                params=[Param(k, str(v)) for k, v in (params or {}).items()],
                tags=[RunTag(k, v) for k, v in (tags or {}).items()],
            )


@dataclass(frozen=True, kw_only=True)
class _News:
    """Something of a trial is to be written: that it began, its rungs, or its end with them."""

    record: TrialRecord
    ended: bool


def _experiment(client: MlflowClient, uri: str, name: str, artifacts: Path) -> str:
    """The id of an experiment, found or made."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = None if uri.startswith(("http:", "https:")) else artifacts.resolve().as_uri()
    # Without this tag MLflow's page takes runs for those of a language model application.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=local, tags=kind))


def _losses(rung: Rung) -> list[Metric]:
    from mlflow.entities import Metric

    reported = int(rung.reported_at * 1000)
    values = {"validation_loss": rung.validation_loss, "train_loss": rung.train_loss}
    return [Metric(k, v, reported, rung.examples_seen) for k, v in values.items()]


def _confirm_name(record: TrialRecord) -> str:
    spec = record.spec
    return "untuned" if spec.kind is Kind.UNTUNED else f"{spec.arm}-confirm-seed{spec.seed}"


def _recipe(tuning: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in tuning.items() if k != "method")
    return f"{tuning['method']}({settings})" if settings else str(tuning["method"])


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
