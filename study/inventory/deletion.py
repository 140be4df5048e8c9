"""Deletes a study: its runs in MLflow, its part of an object store, and its folder.

MLflow comes first and ``study.json`` last, since the runs are found by the identity in it: whoever
is interrupted gives the same command again.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from study.inventory.recorded import mlflow_addresses, opened
from study.storage.lease import Lease
from study.storage.paths import MLFLOW_ARTIFACTS, real_path
from study.storage.study_files import StudyFiles
from study.storage.study_folder import JOURNAL, LOCK, SETTINGS, StudyFolder
from study.tracking.mlflow_delete import StudyIdentity, StudyRuns, runs_of
from study.tracking.mlflow_store import VARIABLE, default_uri, noted, tracking_address
from study.trials.text import size_text
from trainables.errors import BadInput
from trainables.secrecy import command_line, shown
from trainables.stored_json import object_in

STOP = "stop it first, with Ctrl-C where it runs"
"""Advice for a study that a driver runs."""


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """Everything that goes with a study."""

    files: StudyFiles
    find: Callable[[], tuple[StudyRuns, ...]]
    """Finds its runs, in each MLflow store where they may be."""
    runs: tuple[StudyRuns, ...]
    """What ``find`` has found."""

    def lines(self) -> Iterator[str]:
        """What goes, in a line each."""
        files = self.files
        what = "objects" if files.study_folder.in_store else "files"
        yield f"{files.where}: {len(files.versions):,} {what}, {size_text(files.size)}"
        for name in files.foreign:
            yield f"{files.where}/{name}: no study wrote it, and it goes too"
        for link in sorted(name for name in files.versions if files.is_link(name)):
            yield f"{files.where}/{link}: only the link, and nothing of what it leads to"
        if files.study_folder.in_store and files.study_folder.path.is_dir():
            yield f"{files.study_folder.path}: the copy on this machine"
        if not self.runs:
            yield "MLflow: nothing; runs that it has of the study stay"
        for runs in self.runs:
            number = f"{len(runs.ids):,} runs, with their files" if runs.ids else "no runs of it"
            yield f"MLflow at {shown(runs.uri)}: {number}"
            if runs.models:
                yield f"registered models of it: {', '.join(runs.models)}"

    def carry_out(self, say: Callable[[str], object]) -> str:
        """Delete everything. Return what the owners of the MLflow stores must still do, as
        ``StudyRuns.delete`` says it; empty if nothing is left.

        Raises:
            BadInput: a driver runs the study or has run it since, or something cannot be deleted.
        """
        study_folder = self.files.study_folder
        try:
            with _held(study_folder, say):
                now = self.find()
                if [runs.ids for runs in now] != [runs.ids for runs in self.runs]:
                    raise BadInput(
                        f"study {study_folder.name!r} has gone on since; nothing was deleted: "
                        "give the same command again"
                    )
                left = "\n".join(filter(None, [runs.delete() for runs in now]))
                if study_folder.in_store:
                    study_folder.store.drop_all()
                _delete_folder(study_folder.path)
        except OSError as error:
            raise BadInput(
                f"study {study_folder.name!r} is not wholly deleted ({error}); give the same "
                "command again"
            ) from None
        return left


def plan_deletion(
    files: StudyFiles,
    tracking_uri: str | None,
    named: str | None = None,
    *,
    without_mlflow: bool = False,
) -> Deletion:
    """Find all that goes with a study.

    Args:
        files: the study.
        tracking_uri: value of ``--tracking-uri``. If the study was not recorded there as far as is
            known, it is the only MLflow store that is looked into.
        named: the store that the environment names. It is looked into beside those in which the
            study was recorded, and the storage's own.
        without_mlflow: whether to leave MLflow as it is.

    Raises:
        BadInput: a driver runs the study, its MLflow store is not known or cannot be read, or the
            study has trials of which no store knows.
    """
    study_folder = files.study_folder
    if (driver := files.driver()) is not None:
        on = f" on {driver.partition(' ')[0]}" if driver else ""
        raise BadInput(f"study {files.name!r} is running{on}; {STOP}")
    if study_folder.path.is_symlink() and not study_folder.in_store:
        target = real_path(study_folder.path)
        whole = command_line("study.delete", [target.name, "--storage", str(target.parent)])
        raise BadInput(
            f"{study_folder.path} is a link, and no study is deleted through one. To remove the "
            f"link: {shlex.join(['rm', str(study_folder.path)])}; or the study: {whole}"
        )
    identity, stores = _identity(files), list[str]()
    # Without its identity, nobody can tell a study's runs from those of another of its name.
    if not without_mlflow and identity.identity is not None:
        stores = _stores(files, tracking_uri, named)
    artifacts = study_folder.local_storage / MLFLOW_ARTIFACTS
    find = partial(_found, tuple(stores), identity, artifacts)
    runs = find()
    journal = files.versions.get(JOURNAL)
    if stores and journal is not None and journal.bytes and not any(each.ids for each in runs):
        raise BadInput(
            f"study {files.name!r} has trials, but MLflow at {' and '.join(map(shown, stores))} "
            "has no run of it: give the --tracking-uri that has, or --without-mlflow to delete the "
            "rest"
        )
    return Deletion(files=files, find=find, runs=runs)


def _stores(files: StudyFiles, tracking_uri: str | None, named: str | None) -> list[str]:
    """Addresses of the MLflow stores that may have runs of a study: those in which it was recorded,
    that of its storage folder, and the one that the environment names. A ``tracking_uri`` that is
    none of those in which it was recorded is the only one: they have moved.

    Raises:
        BadInput: a store in which it was recorded is not there or needs a password, or no store is
            known.
    """
    study_folder = files.study_folder
    storage, recorded = study_folder.local_storage, mlflow_addresses(files)
    if tracking_uri and noted(tracking_uri, storage) not in recorded:
        return [tracking_uri]
    named = os.environ.get(VARIABLE) if tracking_uri else named
    try:
        stores = [opened(files, address, (tracking_uri, named)) for address in recorded]
    except BadInput as error:
        raise BadInput(f"{error}, or --without-mlflow to delete the rest") from None
    if not study_folder.in_store:
        stores.append(default_uri(storage))
    stores += [named] if named and not tracking_uri else []
    if not stores:  # which says what to give
        tracking_address(str(study_folder.storage), None)
    return list({noted(uri, storage): uri for uri in reversed(stores)}.values())[::-1]


def _found(
    stores: tuple[str, ...], identity: StudyIdentity, artifacts: Path
) -> tuple[StudyRuns, ...]:
    return tuple(runs_of(uri, identity, artifacts) for uri in stores)


@contextmanager
def _held(study_folder: StudyFolder, say: Callable[[str], object]) -> Iterator[None]:
    """Keep drivers away from a study while the block runs.

    Raises:
        BadInput: a driver runs it.
    """
    with ExitStack() as entered:
        if study_folder.in_store:
            lease = Lease(study_folder.store, study_folder.name, say, otherwise=STOP)
            entered.enter_context(lease.held())
        if study_folder.path.is_dir():
            entered.enter_context(study_folder.only_driver(STOP))
        yield


def _identity(files: StudyFiles) -> StudyIdentity:
    """What tells a study's runs from others. It is read as it is, so that a study of a newer
    version can be deleted too."""
    found = object_in(files.read(SETTINGS) or b"")
    identity, settings = found.get("identity", ""), found.get("settings")
    space = settings.get("space") if isinstance(settings, dict) else None
    if not isinstance(identity, str) or not isinstance(space, str):
        return StudyIdentity(name=files.name, identity=None, space="")
    return StudyIdentity(name=files.name, identity=identity, space=space)


def _delete_folder(folder: Path) -> None:
    """Delete a study's folder, ``study.json`` and the lock last.

    Raises:
        OSError: something cannot be deleted.
    """
    if not folder.is_dir():
        return
    last = [folder / SETTINGS, folder / LOCK]
    for path in sorted(folder.iterdir()):
        if path in last:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in last:
        path.unlink(missing_ok=True)
    folder.rmdir()
