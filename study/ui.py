"""``python -m study.ui``: serve MLflow's web page for the studies of a storage folder."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from study.config.deployment import Places
from study.storage.mirror import fetch_settings
from study.storage.paths import MLFLOW_ARTIFACTS, MLFLOW_DATABASE
from study.storage.study_folder import StudyFolder
from study.tracking import mlflow_database
from study.tracking.mlflow_store import check, tracking_address
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse
from trainables.secrecy import without_user


@dataclass(frozen=True, kw_only=True)
class Request(Places):
    """Which studies to show, and where."""

    study: str | None = option(
        None,
        positional=True,
        metavar="NAME",
        help="give a link to the page that compares its arms",
    )
    port: int = option(5000, help="of the page")


@command
def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; the exit code is 2 for bad input."""
    given = parse(_parser(), arguments, Request)
    uri = tracking_address(given.storage, given.tracking_uri)
    storage = fetch_settings(given.storage)
    served = uri.startswith(("http:", "https:"))
    if not served:  # of a server, only its address is said, whoever may look at it
        check(uri)
    page = without_user(uri).rstrip("/") if served else f"http://127.0.0.1:{given.port}"
    if given.tracking_uri is None and not (storage / MLFLOW_DATABASE).is_file():
        raise BadInput(f"no studies in {storage}; python -m study.launch makes one")
    mlflow_database.prepare(uri)
    if given.study:
        what, link = _link(StudyFolder(storage=given.storage, name=given.study), uri)
        print(f"{what}: {page}{link}", flush=True)
    if served:  # an MLflow server has its page already
        print(page)
        return 0
    # The job runner and its consumers serve MLflow's GenAI features only, at 240 MB a process.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # Not as an option: a database's password would stand in the command line.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    serve = ["--port", str(given.port), "--workers", "1"]
    # Where those that write through this server leave their files; not in a new folder here.
    files = ["--artifacts-destination", str((storage / MLFLOW_ARTIFACTS).resolve())]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *serve, *files])


def _link(study_folder: StudyFolder, uri: str) -> tuple[str, str]:
    """Words for the page that shows a study, and its address on the server. The page compares the
    confirmed runs, or shows the study's own run if there are none.

    Raises:
        BadInput: MLflow does not have the study.
    """
    from study.config.study_json import identity, read
    from study.tracking.mlflow_runs import runs_of_space

    study, settings = study_folder.name, read(study_folder)
    check(uri)
    runs = runs_of_space(uri, settings.space, study_folder)
    parent = runs.study(study, identity(study_folder.path))
    if parent is None:
        raise BadInput(f"MLflow at {uri} has no run of study {study!r}; give its --tracking-uri")
    compared = runs.comparison(parent.info.run_id)
    if compared:
        return f"the arms of {study} side by side", compared
    return f"no arm of {study} has a confirmed run; the study's own", runs.page(parent.info.run_id)


def _parser() -> Parser:
    return Parser(prog="python -m study.ui", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
