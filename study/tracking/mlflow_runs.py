"""Finds, makes and writes the runs of studies in MLflow.

A search space is an experiment, a study a parent run, a trial a child run. They are found by their
tags, so that a study that is resumed, on whatever machine, continues in the runs that it began.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.storage.paths import MLFLOW_ARTIFACTS, real_path
from study.storage.study_folder import StudyFolder
from study.tracking import mlflow_create, mlflow_database
from study.tracking.mlflow_names import key
from study.tracking.mlflow_store import is_server, unusable
from study.trials.record import TrialRecord
from study.trials.spec import Kind
from trainables.data.common.wording import BRIEF
from trainables.errors import BadInput
from trainables.secrecy import shown

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

MODEL = "model"
"""Artifact folder of a confirmed trial's model, and the tag of a run that has it."""
TRAINING = "workflowType=machine_learning"
"""Part of an address on an MLflow server: the page is that of training runs, also where the browser
was left in MLflow's half for language models."""
COLOUR = "mlflow.runColor"
"""Tag by which MLflow's page colours a run."""
BY_HAND = "by hand"
"""Tag ``kind`` of the run of a trial that is of no study."""
STUDY = "study"
"""Tag with the name of a run's study."""
LOG_LR = "log10_lr"
"""Metric of a trial: the decimal logarithm of its learning rate, since MLflow's charts of two
values have linear scales."""


def probe(uri: str, artifacts: Path) -> float:
    """Make a run with a metric and a file, read both back and delete the run; return the seconds
    taken.

    Raises:
        BadInput: one of these steps fails.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    runs = MlflowRuns(uri, experiment="doctor", artifacts=artifacts)  # makes a new database
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
        raise unusable(uri, error) from None
    return time.monotonic() - began


def runs_of_space(uri: str, space: str, study_folder: StudyFolder) -> MlflowRuns:
    """Runs of the experiment in which the studies of a search space are. It is named after the file
    of the space, and the files of a local store lie beside the folders of the studies.

    Raises:
        BadInput: the store cannot be reached or written.
    """
    artifacts = study_folder.local_storage / MLFLOW_ARTIFACTS
    return MlflowRuns(uri, experiment=Path(space).stem, artifacts=artifacts)


class MlflowRuns:
    """The runs of one experiment."""

    def __init__(self, uri: str, *, experiment: str, artifacts: Path) -> None:
        """Connect to the store, and find or make the experiment.

        Args:
            uri: address of an MLflow server or database.
            artifacts: folder for the files of a local store; a server has its own.

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
        mlflow_database.prepare(uri)
        try:
            self.client = MlflowClient(tracking_uri=uri)
            local = None if is_server(uri) else real_path(artifacts).as_uri()
            self.experiment_id = mlflow_create.experiment(self.client, experiment, local)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise unusable(uri, error) from None

    def study(self, name: str, identity: str) -> Run | None:
        """The parent run of a study; None if it has none. It is found by ``identity``, since
        several studies on a shared server may have the same name; a study without identity is found
        by its name."""
        who = f"tags.identity = '{identity}'" if identity else f"tags.study = '{name}'"
        return _first(self.search(f"{who} and tags.kind = 'study'"))

    def trials(self, parent_id: str) -> dict[str, Run]:
        """The child runs by trial id."""
        children: dict[str, list[Run]] = {}
        for run in self.search(f"tags.`mlflow.parentRunId` = '{parent_id}'"):
            children.setdefault(run.data.tags["trial"], []).append(run)
        return {trial: min(runs, key=_rank) for trial, runs in children.items()}

    def begin_study(self, name: str, identity: str) -> str:
        """Make the parent run of a study, or set its present one to running; return the run's id.

        Raises:
            BadInput: this user may read runs but not write them.
        """
        from mlflow.exceptions import MlflowException

        try:
            if (found := self.study(name, identity)) is not None:
                self.client.update_run(found.info.run_id, status="RUNNING")
                return str(found.info.run_id)
            tags = {STUDY: name, "identity": identity, "kind": "study"}
            return mlflow_create.run(
                self.client,
                self.experiment_id,
                name=name,
                tags=tags,
                find=lambda: _id(self.study(name, identity)),
            )
        except MlflowException as error:
            raise unusable(self.uri, error) from None

    def begin_trial(self, record: TrialRecord, parent_id: str, study: str, colour: str) -> str:
        """Make a child run for a trial of ``study`` that has none; return the run's id. ``colour``
        is its arm's, as ``#rrggbb``."""
        spec = record.spec
        tags = {
            "mlflow.parentRunId": parent_id,
            STUDY: study,
            "trial": spec.id,
            "kind": str(spec.kind),
            "arm": spec.arm,
            COLOUR: colour,
            **record.ran,
        }
        query = f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.trial = '{spec.id}'"
        return mlflow_create.run(
            self.client,
            self.experiment_id,
            name=_name(record),
            tags=tags,
            find=lambda: _id(_first(self.search(query))),
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
        """Write to a run in one request; make none if there is nothing to write. Of a metric six
        digits are written, as the page shows all of them; ``results.json`` has the rest."""
        from mlflow.entities import Metric, Param, RunTag

        if metrics or params or tags:
            self.client.log_batch(
                run_id,
                metrics=[
                    Metric(key(m.key), six_digits(m.value), m.timestamp, m.step) for m in metrics
                ],
                params=[Param(key(k), str(v)) for k, v in (params or {}).items()],
                tags=[RunTag(key(k), v) for k, v in (tags or {}).items()],
            )

    def holds_model(self, run_id: str) -> bool:
        """Whether a complete model is among the artifacts of a run."""
        return MODEL in self.client.get_run(run_id).data.tags

    def log_model(self, run_id: str, folder: Path) -> None:
        """Add a model that ``study.export`` wrote into ``folder`` to the artifacts of a run."""
        self.client.log_artifacts(run_id, str(folder), MODEL)
        # The tag comes last: an upload that was cut short by a kill is done again.
        self.client.set_tag(run_id, MODEL, MODEL)

    def register(self, run_id: str, name: str, tags: Mapping[str, str], description: str) -> str:
        """Make a run's model a version of the registered model ``name``; return the version's
        address.

        A run whose model is a version already keeps it.
        """
        version = mlflow_create.model_version(
            self.client,
            name,
            source=f"runs:/{run_id}/{MODEL}",
            run_id=run_id,
            tags=tags,
            description=description,
        )
        return f"models:/{name}/{version}"

    def page(self, run_id: str, artifact: str = "") -> str:
        """The address, on a server, of MLflow's page on a run, or on one of its artifacts."""
        file = f"/artifacts/{artifact}" if artifact else ""
        return f"/#/experiments/{self.experiment_id}/runs/{run_id}{file}?{TRAINING}"

    def search(self, condition: str, *, most: int | None = None) -> list[Run]:
        """Runs of the experiment for which a condition holds: all, or the ``most`` that began
        last, up to a thousand."""
        found: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], condition, max_results=most or 1000, page_token=token
            )
            found += page
            token = page.token
            if not token or most:
                return found


def six_digits(value: float) -> float:
    """A number rounded to six digits; one that is whole is left as it is."""
    return value if float(value).is_integer() else float(f"{value:.6g}")


def log_lr(lr: float, at: int) -> Metric:
    """The metric ``LOG_LR`` of a trial. ``at`` is its time in milliseconds since 1970."""
    from mlflow.entities import Metric

    return Metric(LOG_LR, math.log10(lr), at, 0)


def _first(runs: Sequence[Run]) -> Run | None:
    """The run to go on in; an earlier version of this project may have made several."""
    return min(runs, key=_rank, default=None)


def _rank(run: Run) -> tuple[bool, bool, int, str]:
    """Sort key of runs: those that hold something first, then those that have ended, the oldest
    first."""
    empty = not (run.data.params or run.data.metrics)
    return empty, run.info.status == "RUNNING", run.info.start_time, run.info.run_id


def _id(run: Run | None) -> str | None:
    return None if run is None else str(run.info.run_id)


def _name(record: TrialRecord) -> str:
    """Name of a trial's run."""
    spec = record.spec
    if spec.kind is Kind.SEARCH:
        return f"{spec.arm}-{spec.id}"
    if spec.kind is Kind.UNTUNED:
        return "untuned-brief" if spec.training.get("prompt") == BRIEF else "untuned"
    return f"{spec.arm}-confirm-seed{spec.seed}"
