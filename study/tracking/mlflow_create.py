"""Creates runs, experiments and model versions in MLflow exactly once, whatever answers get lost.

MLflow's client sends a request again when the line is cut or the server says that it is busy. The
server may have carried out the first one, and a run would exist twice. So a request that creates
something is sent again only after a search that did not find it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from study.tracking.mlflow_store import is_server

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
NO_ANSWER = {408, 429, 500, 502, 503, 504}
"""HTTP status codes after which MLflow's client sends a request again."""
LONGEST_WAIT_SECONDS = 120.0
"""Longest wait in seconds between two requests, as MLflow's client has it."""


def run(
    client: MlflowClient,
    experiment_id: str,
    *,
    name: str,
    tags: Mapping[str, str],
    find: Callable[[], str | None],
    began: float | None = None,
) -> str:
    """Create a run and return its id.

    Args:
        find: returns the id of the run that has these tags, None if there is none.
        began: start of the run in seconds since 1970; None: now.

    Raises:
        MlflowException: the server refuses, or does not answer.
    """
    start = int((time.time() if began is None else began) * 1000)
    server = client.tracking_uri

    def make() -> str:
        if not is_server(server):
            made = client.create_run(experiment_id, start, dict(tags), run_name=name)
            return str(made.info.run_id)
        asked = {
            "experiment_id": experiment_id,
            "user_id": "unknown",  # as MLflow's client says
            "run_name": name,
            "start_time": start,
            "tags": _listed(tags),
        }
        return str(_post(server, "runs/create", asked)["run"]["info"]["run_id"])

    return _once(make, find)


def experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Find or create an experiment and return its id. One that was deleted, as on MLflow's page, is
    restored, since MLflow lets no other have its name.

    Args:
        artifacts: address of the folder for the files of its runs; None on a server, which has its
            own.

    Raises:
        MlflowException: the experiment can be neither found nor created.
    """

    def find() -> str | None:
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return None if found is None else str(found.experiment_id)

    def make() -> str:
        # Without this tag MLflow's page takes runs for those of a language model application.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, artifact_location=artifacts, tags=kind))

    return find() or _of_one_name(make, find)


def model_version(
    client: MlflowClient,
    name: str,
    *,
    source: str,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
) -> str:
    """Find or create the version of a registered model that comes from a run; return its number.

    Raises:
        MlflowException: the version can be neither found nor created.
    """

    def find() -> str | None:
        found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        return str(min(int(version.version) for version in found)) if found else None

    def make() -> str:
        server = client._registry_uri or ""
        if not is_server(server):
            made = client.create_model_version(
                name, source, run_id, dict(tags), description=description
            )
            return str(made.version)
        asked = {
            "name": name,
            "source": source,
            "run_id": run_id,
            "tags": _listed(tags),
            "description": description,
        }
        return str(_post(server, "model-versions/create", asked)["model_version"]["version"])

    if (found := find()) is not None:
        return found
    if not client.search_registered_models(f"name = '{name}'"):
        _of_one_name(
            lambda: client.create_registered_model(name),
            lambda: client.search_registered_models(f"name = '{name}'") or None,
        )
    return _once(make, find)


def _of_one_name(make: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Result of ``make`` for something of which MLflow allows only one of a name. The client may
    repeat such a request. MLflow refuses it if another process, or a request whose answer was lost,
    was faster; then ``find`` gives the result."""
    from mlflow.exceptions import MlflowException

    try:
        return make()
    except MlflowException:
        if (found := find()) is None:
            raise
        return found


def _listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(value)} for key, value in tags.items()]


def _once(make: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Result of ``make``, which is called again if no answer came and ``find`` finds nothing."""
    from mlflow.environment_variables import (
        MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    )
    from mlflow.exceptions import MlflowException

    wait = float(MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get())
    for left in range(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), -1, -1):
        try:
            return make()
        except MlflowException as error:
            if error.error_code != "TEMPORARILY_UNAVAILABLE" or left == 0:
                raise
        time.sleep(min(wait, LONGEST_WAIT_SECONDS))
        wait *= 2
        if (found := find()) is not None:
            return found
    raise AssertionError("the last time either makes or raises")


def _post(server: str, what: str, asked: Mapping[str, Any]) -> Any:
    """Send a request once and return the answer.

    Raises:
        MlflowException: the server refuses it or, with the error code ``TEMPORARILY_UNAVAILABLE``,
            no answer says whether the server carried it out.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    address, who = f"/api/2.0/mlflow/{what}", get_default_host_creds(server)
    try:
        answer = http_request(
            who, address, "POST", max_retries=0, raise_on_status=False, json=asked
        )
    except MlflowException as error:
        raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from None
    if answer.status_code in NO_ANSWER:
        line = f"the server answers {what} with {answer.status_code} {answer.reason}"
        raise MlflowException(line, error_code=TEMPORARILY_UNAVAILABLE)
    return verify_rest_response(answer, address).json()
