"""``python -m study.ui``: serve MLflow's web page for the studies of a storage folder."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

from study.config.deployment import Places
from study.inventory.recorded import mlflow_addresses, recorded_store
from study.storage import study_files
from study.storage.mirror import fetch_settings
from study.storage.paths import MLFLOW_ARTIFACTS, MLFLOW_DATABASE, real_path
from study.storage.study_folder import StudyFolder, study_names
from study.tracking import mlflow_database
from study.tracking.mlflow_store import (
    check,
    default_uri,
    is_server,
    named_store,
    tracking_address,
)
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse
from trainables.secrecy import shown, without_user

LAST_PORT = 65535
MOST_TAKEN = 20
"""Number of ports after the one that was asked for that are tried."""


@dataclass(frozen=True, kw_only=True)
class Request(Places):
    """Which studies to show, and where."""

    study: str | None = option(
        None,
        positional=True,
        metavar="NAME",
        help="give links to its view and those of all studies of its space, in the MLflow store in "
        "which it was recorded last",
        default="the study that began last",
    )
    port: int = option(5000, help="of the page")


@command
def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; the exit code is 2 for bad input."""
    given = parse(_parser(), arguments, Request)
    named = named_store(given.tracking_uri)
    storage = fetch_settings(given.storage)
    study = given.study or _latest(given.storage)
    uri = named or (recorded_store(given.storage, study) if study else None)
    uri = tracking_address(given.storage, uri)
    served = is_server(uri)
    if not served:  # of a server, only its address is said, whoever may look at it
        check(uri)
    if uri == default_uri(storage) and not (storage / MLFLOW_DATABASE).is_file():
        raise BadInput(f"no studies in {storage}; python -m study.launch makes one")
    if served:  # an MLflow server has its page already
        page = without_user(uri).rstrip("/")
        _show_links(given, study, uri, page)
        print(page)
        return 0
    with _claimed_port(given.port) as port:
        _show_links(given, study, uri, f"http://127.0.0.1:{port}")
        # The job runner and its consumers serve MLflow's GenAI features only, at 240 MB a process.
        os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        # Not as an option: a database's password would stand in the command line.
        os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
        serve = ["--port", str(port), "--workers", "1"]
        # Where those that write through this server leave their files; not in a new folder here.
        files = ["--artifacts-destination", str(real_path(storage / MLFLOW_ARTIFACTS))]
        os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *serve, *files])


def _show_links(given: Request, study: str, uri: str, page: str) -> None:
    """Print the addresses of views on the server whose page is at ``page``: those of the study and
    of all of its space, or none if nobody asked for it and MLflow does not have it.

    Raises:
        BadInput: MLflow does not have the study that was asked for.
    """
    mlflow_database.prepare(uri)
    with suppress(BadInput) if given.study is None else nullcontext():
        links = _links(StudyFolder(storage=given.storage, name=study), uri) if study else {}
        width = max(map(len, links), default=0)
        for name, link in links.items():
            print(f"{name:{width}}  {page}{link}", flush=True)


def _latest(storage: str) -> str:
    """Name of the study that began last; empty if there is none."""
    folders = [StudyFolder(storage=storage, name=name) for name in study_names(storage)]
    return max(folders, key=_began).name if folders else ""


def _began(folder: StudyFolder) -> float:
    """Time at which a study began, in seconds since 1970."""
    return folder.settings.stat().st_mtime


@contextmanager
def _claimed_port(asked: int) -> Iterator[int]:
    """The first port from ``asked`` on at which nothing listens; one that was not asked for is
    printed.

    Until the block ends, and in a program that this process becomes in it, the port is claimed by a
    socket for datagrams: no other ``study.ui`` takes it before the server listens there.

    Raises:
        BadInput: the port is none, this user may not have it, or too many are taken.
    """
    if not 0 < asked <= LAST_PORT:
        raise BadInput(f"--port must be from 1 to {LAST_PORT}, got {asked}")
    for port in range(asked, min(asked + MOST_TAKEN, LAST_PORT) + 1):
        with socket.socket(type=socket.SOCK_DGRAM) as claim, socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                claim.bind(("127.0.0.1", port))
                listener.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise BadInput(f"--port {port} cannot be used: {error.strerror}") from None
                continue
            listener.close()  # it does not listen, and is the server's to open
            claim.set_inheritable(True)
            if port != asked:
                print(f"port {asked} is taken; this is port {port}", flush=True)
            yield port
            return
    raise BadInput(f"ports {asked} to {port} are taken; give another --port")


def _links(study_folder: StudyFolder, uri: str) -> dict[str, str]:
    """Names and addresses, on the server, of the views of a study and of all studies of its space.
    The views are renewed if this user may write.

    Raises:
        BadInput: MLflow does not have the study.
    """
    from study.config.begun_study import begun_study
    from study.config.study_json import identity, read
    from study.tracking import mlflow_views
    from study.tracking.mlflow_runs import runs_of_space

    study, settings = study_folder.name, read(study_folder)
    check(uri)
    runs = runs_of_space(uri, settings.space, study_folder)
    parent = runs.study(study, identity(study_folder.path))
    if parent is None:
        raise BadInput(
            f"MLflow at {shown(uri)} has no run of study {study!r}; {_where_else(study_folder)}"
        )
    arms = begun_study(study_folder.path).all_arms
    refused = mlflow_views.renew_if_allowed(runs, parent.info.run_id, study, arms)
    if refused:
        print(f"the views of {study} are as they were: {refused}", flush=True)
    keys = {study: parent.info.run_id, **{name: key for key, name in mlflow_views.GENERAL.items()}}
    return {name: mlflow_views.address(runs.experiment_id, key) for name, key in keys.items()}


def _where_else(study_folder: StudyFolder) -> str:
    """What to do about a study whose run is not in an MLflow store, in words."""
    known = mlflow_addresses(study_files.one(str(study_folder.storage), study_folder.name))
    own = default_uri(study_folder.local_storage)
    options = [f"--tracking-uri {shlex.quote(address or own)}" for address in known]
    return f"give {' or '.join(options)}" if options else "give its --tracking-uri"


def _parser() -> Parser:
    return Parser(prog="python -m study.ui", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
