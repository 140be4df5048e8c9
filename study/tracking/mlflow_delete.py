"""Deletes a study's runs from MLflow, with their files and the models registered of them.

MLflow's own deletion only marks a run, and ``mlflow gc``, which removes marked runs, leaves the
rows of their datasets and registered models. So in a database that is opened directly, such as that
of a storage folder, all rows that belong to the runs are deleted here. A server's database is its
owner's: there, what its interface allows is deleted, and the owner is told what is left to do.

The experiment stays: it is that of the search space, and another study may be about to use it. Of
its tags, those go whose names end with the id of one of the runs.
"""

from __future__ import annotations

import shlex
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from study.tracking.mlflow_database import BUSY_SECONDS, sqlite_file
from study.tracking.mlflow_store import check, unusable
from study.tracking.mlflow_tables import MlflowTables
from trainables.secrecy import shown, without_user

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from sqlalchemy import Connection, Engine

REFERENCES = ("run_uuid", "run_id")
"""Names of columns that hold the run to which a row belongs."""


@dataclass(frozen=True, kw_only=True)
class StudyIdentity:
    """What tells a study's runs from all others."""

    name: str
    identity: str | None
    """Identity of the study; empty for a study that is older than this, which is known by its name
    and its files, and on a server not at all; None if it is not known, since its ``study.json`` is
    damaged: then no run is known to be its."""
    space: str
    """Search space of the study, whose file names its experiment; empty if it is not known."""


class StudyRuns(ABC):
    """The runs of one study in an MLflow store."""

    uri: str
    ids: tuple[str, ...] = ()
    """Ids of the runs: the study's own and those of its trials."""
    models: tuple[str, ...] = ()
    """Versions of registered models that come from these runs, in words."""

    @abstractmethod
    def delete(self) -> str:
        """Delete the runs, their files and the versions of models. Return what the owner of the
        store must still do, in words and as a command in a line of its own; empty if nothing is
        left.

        Raises:
            BadInput: the store cannot be written.
        """


def runs_of(uri: str, study: StudyIdentity, artifacts: Path) -> StudyRuns:
    """Find the runs of a study.

    Args:
        uri: address of the MLflow store.
        study: the study.
        artifacts: folder of the files of a local store.

    Raises:
        BadInput: the store cannot be reached or read.
    """
    if uri.startswith(("http:", "https:")):
        check(uri)
        return _OnServer(uri, study)
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        return _None(uri)
    check(uri)
    return _InDatabase(uri, study, artifacts)


class _None(StudyRuns):
    """No runs, since there is no store yet."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def delete(self) -> str:
        """Do nothing."""
        return ""


class _InDatabase(StudyRuns):
    """Runs in a database that is opened directly."""

    def __init__(self, uri: str, study: StudyIdentity, artifacts: Path) -> None:
        from sqlalchemy import create_engine, inspect
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        self.uri, self.study, self.artifacts = uri, study, artifacts
        try:
            patience = {"timeout": BUSY_SECONDS} if uri.startswith("sqlite") else {}
            self._engine: Engine = create_engine(uri, poolclass=NullPool, connect_args=patience)
            found = inspect(self._engine)
            self._tables = MlflowTables(
                {
                    table: {column["name"] for column in found.get_columns(table)}
                    for table in found.get_table_names()
                }
            )
            if {"runs", "tags"} <= self._tables.columns.keys():
                with self._engine.connect() as connection:
                    self.ids = tuple(self._find(connection))
                    self._versions = self._registered(connection)
                    self.models = tuple(f"{row['name']} {row['version']}" for row in self._versions)
        except SQLAlchemyError as error:
            raise unusable(uri, error) from None

    def delete(self) -> str:
        """Delete files, then rows, which name the files: whoever is interrupted begins again."""
        from sqlalchemy.exc import SQLAlchemyError

        if not self.ids:
            return ""
        try:
            with self._engine.connect() as connection:
                folders = list(self._folders(connection))
            left = _delete_files(folders, self.uri)
            with self._engine.begin() as connection:
                self._delete_rows(connection)
        except (SQLAlchemyError, OSError) as error:
            raise unusable(self.uri, error) from None
        return f"files that this machine cannot delete are left: {', '.join(left)}" if left else ""

    def _find(self, connection: Connection) -> list[str]:
        """Ids of the study's runs and of all runs below them, oldest generation first."""
        study = self.study
        if study.identity is None:
            return []
        key, value = ("identity", study.identity) if study.identity else ("study", study.name)
        chosen = [row["run_uuid"] for row in self._tagged(connection, key, [value])]
        tags: dict[str, dict[str, str]] = {}
        for row in self._tables.rows(connection, "tags", "run_uuid", chosen):
            tags.setdefault(row["run_uuid"], {})[row["key"]] = row["value"]
        # A copy of a study's folder has its identity, but not its name.
        chosen = [run for run in chosen if tags[run].get("study") == study.name]
        if not study.identity:
            chosen = [
                run
                for run in chosen
                if not tags[run].get("identity")
                and tags[run].get("kind") == "study"
                and (self.artifacts / run).is_dir()  # or it is of another storage
            ]
        found = dict.fromkeys(chosen)
        while chosen:
            below = self._tagged(connection, "mlflow.parentRunId", chosen)
            chosen = [row["run_uuid"] for row in below if row["run_uuid"] not in found]
            found |= dict.fromkeys(chosen)
        return list(found)

    def _tagged(self, connection: Connection, key: str, values: Sequence[str]) -> list[Any]:
        """Tags of this key with one of these values."""
        rows = self._tables.rows(connection, "tags", "value", values)
        return [row for row in rows if row["key"] == key]

    def _folders(self, connection: Connection) -> Iterator[tuple[str, str]]:
        """Id of each run, or model that it logged, and the address of its files."""
        for row in self._tables.rows(connection, "runs", "run_uuid", self.ids):
            yield row["run_uuid"], row["artifact_uri"] or ""
            # The storage folder may have been moved since.
            yield row["run_uuid"], str(self.artifacts / row["run_uuid"] / "artifacts")
        for row in self._logged(connection):
            yield row["model_id"], row["artifact_location"] or ""

    def _logged(self, connection: Connection) -> list[Any]:
        """Models that MLflow has logged with the runs, besides their files."""
        if "logged_models" not in self._tables.columns:
            return []
        return self._tables.rows(connection, "logged_models", "source_run_id", self.ids)

    def _registered(self, connection: Connection) -> list[Any]:
        """Versions of registered models that come from the runs."""
        if "model_versions" not in self._tables.columns:
            return []
        return self._tables.rows(connection, "model_versions", "run_id", self.ids)

    def _delete_rows(self, connection: Connection) -> None:
        """Delete all rows that belong to the runs, those that others refer to last."""
        for version in self._registered(connection):
            self._delete_version(connection, version)
        models = [row["model_id"] for row in self._logged(connection)]
        for name, columns in self._tables.columns.items():
            if "model_id" in columns and name != "logged_models" and models:
                self._tables.delete(connection, name, "model_id", models)
        if models:
            self._tables.delete(connection, "logged_models", "model_id", models)
        self._delete_inputs(connection, [*self.ids, *models])
        for name, columns in self._tables.columns.items():
            for reference in REFERENCES:
                if reference in columns and name not in ("runs", "model_versions"):
                    self._tables.delete(connection, name, reference, self.ids)
            if name == "issues" and "source_run_id" in columns:  # they are their writers'
                self._tables.forget(connection, name, "source_run_id", self.ids)
        self._delete_experiment_tags(connection)
        self._tables.delete(connection, "runs", "run_uuid", self.ids)

    def _delete_inputs(self, connection: Connection, ids: Sequence[str]) -> None:
        """Delete what links runs with datasets and models, and datasets that no other run uses."""
        datasets: dict[str, None] = {}
        for name in ("inputs", "entity_associations"):
            for end in ("source_id", "destination_id") if name in self._tables.columns else ():
                rows = self._tables.rows(connection, name, end, ids)
                if name == "inputs" and rows:
                    datasets |= {
                        row["source_id"]: None for row in rows if row["source_type"] == "DATASET"
                    }
                    links = [row["input_uuid"] for row in rows]
                    self._tables.delete(connection, "input_tags", "input_uuid", links)
                self._tables.delete(connection, name, end, ids)
        if datasets:
            used = self._tables.rows(connection, "inputs", "source_id", list(datasets))
            orphans = datasets.keys() - {row["source_id"] for row in used}
            self._tables.delete(connection, "datasets", "dataset_uuid", sorted(orphans))

    def _delete_experiment_tags(self, connection: Connection) -> None:
        """Delete the tags of experiments that are about a run, such as a view of it."""
        tags = self._tables.where(connection, "experiment_tags", {})
        about = [tag["key"] for tag in tags if _is_about(tag["key"], self.ids)]
        self._tables.delete(connection, "experiment_tags", "key", about)

    def _delete_version(self, connection: Connection, version: Any) -> None:
        """Delete a version of a registered model, and the model if it has no other and nobody has
        described it."""
        keys = {k: version[k] for k in ("workspace", "name", "version") if k in version}
        for name in ("model_version_tags", "registered_model_aliases", "model_versions"):
            if name in self._tables.columns:
                self._tables.delete_where(connection, name, keys)
        model = {key: value for key, value in keys.items() if key != "version"}
        noted = [
            row
            for name in ("model_versions", "registered_model_tags")
            if name in self._tables.columns
            for row in self._tables.where(connection, name, model)
        ]
        described = any(
            row["description"] for row in self._tables.where(connection, "registered_models", model)
        )
        if not noted and not described:
            self._tables.delete_where(connection, "registered_models", model)


class _OnServer(StudyRuns):
    """Runs on a server."""

    def __init__(self, uri: str, study: StudyIdentity) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.uri, self.study = uri, study
        self._experiment_id, self._tags_of_experiment = "", list[str]()
        try:
            self._client: MlflowClient = MlflowClient(tracking_uri=uri)
            self._runs = self._find()
            self.ids = tuple(self._runs)
            self._versions = [
                version
                for run in self._runs.values()
                if "model" in run.data.tags  # without its files, none can be registered
                for version in self._client.search_model_versions(f"run_id = '{run.info.run_id}'")
            ]
            self.models = tuple(f"{v.name} {v.version}" for v in self._versions)
        except (MlflowException, OSError) as error:
            raise unusable(uri, error) from None

    def delete(self) -> str:
        """Delete registered versions, files and runs, the study's own run last."""
        from mlflow.exceptions import MlflowException

        try:
            for version in self._versions:
                self._client.delete_model_version(version.name, version.version)
                self._delete_model(version.name)
            folders = [(run, found.info.artifact_uri) for run, found in self._runs.items()]
            left = _delete_files(folders, self.uri)
            for key in self._tags_of_experiment:
                self._client.delete_experiment_tag(self._experiment_id, key)
            for run_id in reversed(self.ids):
                if self._runs[run_id].info.lifecycle_stage == "active":
                    self._client.delete_run(run_id)
        except (MlflowException, OSError) as error:
            raise unusable(self.uri, error) from None
        if not self.ids:
            return ""
        server = shown(without_user(self.uri).rstrip("/"))
        files = f" (files are left at {', '.join(left)})" if left else ""
        command = ["mlflow", "gc", "--backend-store-uri", "DATABASE", "--tracking-uri", server]
        command += ["--run-ids", ",".join(self.ids)]
        return (
            f"the server at {server} only marks runs as deleted{files}. Its owner removes them by "
            "this command, with the address of the server's database for DATABASE; it also removes "
            "all experiments and logged models that others have marked as deleted, and MLflow has "
            f"none for the rows of the runs' datasets:\n{shlex.join(command)}"
        )

    def _find(self) -> dict[str, Run]:
        """Id -> run, of the study's runs and those of its trials, marked ones included. The tags of
        the experiment that are about them are noted too. A study without identity has none: on a
        server, a run of its name may be another's."""
        if not self.study.identity:
            return {}
        experiment = self._client.get_experiment_by_name(Path(self.study.space).stem)
        if experiment is None:
            return {}
        study, where = self.study, experiment.experiment_id
        parents = [
            run
            for run in self._search(where, f"tags.identity = '{study.identity}'")
            if run.data.tags.get("study") == study.name  # a copy's folder has its identity too
        ]
        found = {run.info.run_id: run for run in parents}
        for parent in parents:
            below = self._search(where, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
            found |= {run.info.run_id: run for run in below}
        self._experiment_id = where
        self._tags_of_experiment = [key for key in experiment.tags if _is_about(key, found)]
        return found

    def _search(self, experiment: str, condition: str) -> Iterator[Run]:
        from mlflow.entities import ViewType

        token: str | None = None
        while True:
            page = self._client.search_runs(
                [experiment], condition, ViewType.ALL, max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _delete_model(self, name: str) -> None:
        """Delete a registered model if it has no version left and nobody has described it."""
        if self._client.search_model_versions(f"name = '{name}'"):
            return
        model = self._client.get_registered_model(name)
        if not (model.description or model.tags):
            self._client.delete_registered_model(name)


def _is_about(tag: str, ids: Collection[str]) -> bool:
    """Whether the name of an experiment's tag ends with the id of a run."""
    return tag.rpartition(".")[2] in ids


def _delete_files(folders: Iterable[tuple[str, str]], uri: str) -> list[str]:
    """Delete the files at each address, which are those of the run or model of this id. Return the
    addresses at which they cannot be deleted."""
    left = []
    for owner, address in folders:
        path = _local(address)
        if path is None:
            if not _deleted_elsewhere(address, uri):
                left.append(shown(address))
        elif owner in path.parts:  # or it is a folder of others too
            # MLflow has them in a folder of the run's own, which has nothing else.
            whole = path.parent if path.parent.name == owner else path
            if whole.exists():
                shutil.rmtree(whole)
    return left


def _local(address: str) -> Path | None:
    """Path of an address of files; None if they are not on this machine."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(address) if not parts.scheme else None


def _deleted_elsewhere(address: str, uri: str) -> bool:
    """Delete files through a server or from an object store; return whether that is possible."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        get_artifact_repository(address, tracking_uri=uri).delete_artifacts()
    except Exception:  # each kind of store has errors of its own
        return False
    return True
