"""``python -m study.ui``: MLflow's page on the studies of a storage folder."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from study import database
from trainables.errors import BadInput
from trainables.secrecy import Parser, guard, without_user

STORE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
"""Folder of a store's files, beside it."""


def default_uri(storage: Path) -> str:
    """The MLflow store inside a storage folder."""
    return f"sqlite:///{(storage / STORE).resolve()}"


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; the exit code is 2 for bad input."""
    given = _parser().parse_args(arguments)
    try:
        storage = _storage(given)
        uri = given.tracking_uri or default_uri(storage)
        served = uri.startswith(("http:", "https:"))
        page = without_user(uri).rstrip("/") if served else f"http://127.0.0.1:{given.port}"
        if given.tracking_uri is None and not (storage / STORE).is_file():
            raise BadInput(f"no studies in {storage}; python -m study.launch makes one")
        database.prepare(uri)
        if given.study:
            what, link = _link(storage, given.study, uri)
            print(f"{what}: {page}{link}", flush=True)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if served:  # it has its page already
        print(page)
        return 0
    # The job runner and its consumers serve MLflow's GenAI features only, at 240 MB a process.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # Not as an option: a database's password would stand in the command line.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    serve = ["--port", str(given.port), "--workers", "1"]
    # Where those that write through this server leave their files; not in a new folder here.
    files = ["--artifacts-destination", str((storage / ARTIFACTS).resolve())]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *serve, *files])


def _storage(given: argparse.Namespace) -> Path:
    """The folder of studies; of those in an object store, this machine's copy."""
    from study.objects import is_store
    from study.storage import fetch_names

    if not is_store(given.storage):
        return Path(given.storage)
    if given.tracking_uri is None:
        raise BadInput(f"--storage {given.storage} has no MLflow store; give its --tracking-uri")
    return fetch_names(given.storage)


def _link(storage: Path, study: str, uri: str) -> tuple[str, str]:
    """What there is to see of a study, and where on the server: its confirmed runs compared, or, if
    there are none, its own run.

    Raises:
        BadInput: MLflow does not have the study.
    """
    from study.runs import Runs, check
    from study.settings import identity, read

    experiment = Path(read(storage, study).space).stem
    check(uri)
    runs = Runs(uri, experiment=experiment, artifacts=storage / ARTIFACTS)
    parent = runs.study(study, identity(storage / study))
    if parent is None:
        raise BadInput(f"MLflow at {uri} has no run of study {study!r}; give its --tracking-uri")
    compared = runs.comparison(parent.info.run_id)
    if compared:
        return f"the arms of {study} side by side", compared
    return f"no arm of {study} has a confirmed run; the study's own", runs.page(parent.info.run_id)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m study.ui", description=__doc__)
    parser.add_argument(
        "study", nargs="?", metavar="NAME", help="give a link to the page that compares its arms"
    )
    parser.add_argument("--storage", default="studies", metavar="DIR|s3://BUCKET/NAME")
    parser.add_argument("--tracking-uri", metavar="URI", help="default: the store in --storage")
    parser.add_argument("--port", type=int, default=5000)
    return parser


if __name__ == "__main__":
    guard()
    sys.exit(main())
