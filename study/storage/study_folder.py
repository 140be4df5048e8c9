"""The folder of a study: the name of each of its files, where they lie, and the driver's lock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from study.storage.lease import FOLLOW, LEASE, Lease, LeaseFolder
from study.storage.object_store import ObjectStore, is_store, local_copy
from study.storage.paths import STUDY_NAME, real_path, safe_join
from trainables.cache import regular_file
from trainables.errors import BadInput, printable, unknown
from trainables.stored_json import object_in

STORAGE = "studies"
"""Value of ``--storage`` where it is not given."""
SETTINGS = "study.json"
"""Settings with which the study was begun; see ``study.config.study_json``."""
PROTOCOL = "protocol.json"
"""What the study planned before its first trial; see ``study.protocol.planned``."""
JOURNAL = "optuna.journal"
"""Every trial and what became of it; see ``study.search.journal``."""
LOG = "study.log"
"""Every event in a line; see ``study.tracking.progress``."""
ENGINES = "deepspeed.json"
"""DeepSpeed's configuration of each arm, where there are any."""
RESULTS = "results.json"
"""Results of the finished study; see ``study.analysis.results_file``."""
REPORT = "report.html"
"""The results on one page."""
ARMS_TABLE, PAIRS_TABLE, TRIALS_TABLE = "results.csv", "comparisons.csv", "trials.csv"
GROUPS_TABLE = "groups.csv"
"""Tables of arms, pairs of arms and trials."""
LATEX_TABLES = "results.tex"
"""Tables of arms and of pairs of arms for LaTeX."""
METHODS_TABLE, METHODS_LATEX = "methods.md", "methods.tex"
"""How the study was done, as a table for a paper's methods section."""
CHECKPOINTS = "checkpoints"
"""Folder with a folder of checkpoints for each trial. Workers write it."""
ANSWERS = "answers"
"""Folder with the answers of each trial. Workers write it."""
EXPORTS = "export"
"""Folder with the models that ``study.export`` wrote, by arm."""
PARTIAL = "partial-"
"""Start of the name of a checkpoint that is not yet written to its end."""
LOCK = ".lock"
"""Lock of the driver, on this machine."""
LOCK_SECONDS, LOCK_TRIES = 0.2, 10
"""Seconds for which a driver tries to get the lock, since whoever asks whether the study is running
holds it for a moment; and number of times."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of a file system that has no locks, as of an NFS without lockd."""
SETTLE_SECONDS = 1.0
"""Seconds after which of two drivers that took a lease at once only one has it."""
WRITTEN = {
    *(SETTINGS, JOURNAL, LOG, ENGINES, RESULTS, REPORT, ARMS_TABLE, PAIRS_TABLE, TRIALS_TABLE),
    *(GROUPS_TABLE, PROTOCOL, METHODS_TABLE, METHODS_LATEX),
    *(LATEX_TABLES, CHECKPOINTS, ANSWERS, EXPORTS, LOCK, LEASE),
}
"""Names of all files and folders in a study's folder, but for temporary ones, which begin with a
dot."""
WHOLE = "whole"
"""Object that names the checkpoint of a trial which is in the store with all its files."""


@dataclass(frozen=True, kw_only=True)
class StudyFolder:
    """The files of one study, in a folder or in an object store. The object is sent to all nodes:
    with a store each node has a copy of its own."""

    storage: str | Path
    """Value of ``--storage``: a folder that all nodes share, or the URL of an object store."""
    name: str

    @classmethod
    def from_path(cls, path: Path) -> StudyFolder:
        """The study whose folder is ``path``, on a disk."""
        return cls(storage=path.parent, name=path.name)

    def absolute(self) -> StudyFolder:
        """A copy whose folder is absolute, for processes that have another working folder."""
        storage = self.storage if self.in_store else real_path(self.storage)
        return type(self)(storage=storage, name=self.name)

    @property
    def options(self) -> list[str]:
        """Options by which a command finds the study, besides its name."""
        return [] if str(self.storage) == STORAGE else ["--storage", str(self.storage)]

    @property
    def in_store(self) -> bool:
        """Whether the study is in an object store."""
        return is_store(self.storage)

    @property
    def store(self) -> ObjectStore:
        """Part of the object store that holds the study, if it is in one."""
        return ObjectStore(str(self.storage)).part(self.name)

    @property
    def local_storage(self) -> Path:
        """Folder of all studies on this node, of copies if they are in a store."""
        return local_storage(self.storage)

    @property
    def path(self) -> Path:
        """Folder of the study on this node, a copy if the study is in a store."""
        return self.local_storage / self.name

    @property
    def settings(self) -> Path:
        """File ``study.json`` on this node."""
        return self.path / SETTINGS

    @property
    def results(self) -> Path:
        """File ``results.json`` on this node."""
        return self.path / RESULTS

    @property
    def named(self) -> bool:
        """Whether a study can have this name."""
        return STUDY_NAME.fullmatch(self.name) is not None

    @property
    def begun(self) -> bool:
        """Whether the study has begun."""
        return self.named and self.settings.is_file()

    @property
    def finished(self) -> bool:
        """Whether the study has results."""
        return self.named and self.results.is_file()

    def checkpoints(self, trial_id: str) -> Path:
        """Folder of a trial's checkpoints on this node.

        Raises:
            BadInput: no trial can have this id.
        """
        return safe_join(self.path, CHECKPOINTS, trial_id)

    def answers(self, trial_id: str, split: str) -> Path:
        """File of a trial's answers to the questions of a split, on this node.

        Raises:
            BadInput: no trial or split can have this name.
        """
        return safe_join(self.path, ANSWERS, f"{trial_id}-{split}.parquet")

    def export(self, arm: str) -> Path:
        """Folder for an arm's exported model, on this node.

        Raises:
            BadInput: no arm can have this name.
        """
        return safe_join(self.path, EXPORTS, arm)

    @property
    def driver(self) -> str | None:
        """Name of the process that runs the study, as ``this_driver`` gives it, as far as this
        machine knows: None if none does, empty if the name is not known. The lock is asked for and
        given back at once; a driver that begins at this moment waits for it."""
        try:
            regular_file.check(self.path / LOCK)
            with (self.path / LOCK).open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return printable(lock.read())
        except (OSError, ValueError):  # there is no lock, or the file system has none
            return None
        return None

    @contextmanager
    def only_driver(self, otherwise: str = FOLLOW) -> Iterator[None]:
        """Hold the study's lock, so that no second process runs the study. Where the file system
        has no locks, a lease stands for it (``study.storage.lease``). A folder in which no study
        was begun meanwhile is not left behind.

        Raises:
            BadInput: another process holds the lock (``otherwise`` says what to do), or has just
                removed the folder.
        """
        regular_file.check(self.path / LOCK)
        with (self.path / LOCK).open("a") as lock:  # it may be another's, whose name is in it
            for left in reversed(range(LOCK_TRIES)):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not left:
                        line = f"study {self.name!r} is running already; {otherwise}"
                        raise BadInput(line) from None
                    time.sleep(LOCK_SECONDS / LOCK_TRIES)
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
                    with self._leased(otherwise):
                        yield
                    return
            if not _is_at(lock.fileno(), self.path / LOCK):
                line = f"study {self.name!r} was given up by another process just now; start again"
                raise BadInput(line)
            try:
                lock.truncate(0)
                lock.write(this_driver())
                lock.flush()
                yield
            finally:
                if not self.begun:
                    with suppress(OSError):  # there is more in it, or it is gone
                        os.unlink(lock.name)
                        self.path.rmdir()

    @contextmanager
    def _leased(self, otherwise: str) -> Iterator[None]:
        """Hold the study's lease, in a folder that has no locks. If another driver takes it over,
        this process ends: two that write would spoil the journal.

        Raises:
            BadInput: another process holds the lease.
        """
        lease = Lease(LeaseFolder(self.path), self.name, otherwise=otherwise)
        lease.driver = this_driver()

        def lost(other: str) -> None:
            print(
                f"error: study {self.name!r} was taken over by a driver on {other}, since this one "
                "had not renewed its lease; it ends here",
                file=sys.stderr,
                flush=True,
            )
            os._exit(2)

        with lease.held(lost):
            time.sleep(SETTLE_SECONDS)
            if other := lease.taken_over_by():
                raise BadInput(f"study {self.name!r} is running already, on {other}; {otherwise}")
            yield

    # What follows moves files between a worker's node and an object store.

    def fetch_checkpoint(self, trial_id: str) -> Path:
        """Folder of a trial's checkpoints, with the last one in it if there is any."""
        folder = self.checkpoints(trial_id)
        if self.in_store:
            from trainables.cache.arrays import file_lock

            self.path.mkdir(parents=True, exist_ok=True)
            with file_lock(safe_join(self.path, f".{trial_id}{LOCK}")):  # ranks share this machine
                self._fetch(trial_id, folder)
        return folder

    def _fetch(self, trial_id: str, folder: Path) -> None:
        """Make ``folder`` equal to what the store has. Whatever else is in it was never reported,
        and may be the part of one machine only."""
        from trainables.training import checkpoint

        store = self._checkpoints_in_store(trial_id)
        name, files = _whole(store)
        newest = safe_join(folder, name) if name else folder
        local = bool(files) and all(safe_join(newest, *f.split("/")).is_file() for f in files)
        if local and checkpoint.complete(newest):
            return
        shutil.rmtree(folder, ignore_errors=True)
        partial = folder / f"{PARTIAL}{name}"
        try:
            for file in files:
                store.get(f"{name}/{file}", safe_join(partial, *file.split("/")))
        except FileNotFoundError:  # a checkpoint that lacks a file is none: the trial begins anew
            return
        if partial.is_dir():
            partial.rename(newest)

    def put_checkpoint(self, trial_id: str) -> list[str]:
        """Upload this machine's part of a trial's last checkpoint to the store, and return its
        keys. Without a store nothing is done, and there are none."""
        if not self.in_store:
            return []
        folder = self.checkpoints(trial_id)
        last = max(path for path in folder.glob("[0-9]*") if path.is_dir())
        files = sorted(str(f.relative_to(folder)) for f in last.rglob("*") if f.is_file())
        store = self._checkpoints_in_store(trial_id)
        for file in files:
            store.put(folder / file, file)
        # Whoever goes on from it downloads it; until then it would only fill this node's disk.
        shutil.rmtree(folder)
        return files

    def keep_checkpoint(self, trial_id: str, keys: Collection[str]) -> None:
        """Declare a trial's last checkpoint whole in the store, and delete older ones. ``keys`` are
        those of the parts that all nodes have put there. Call it before the rung is reported, so
        that a checkpoint that is relied on outlives its nodes."""
        if not self.in_store:
            return
        store = self._checkpoints_in_store(trial_id)
        (name,) = {key.split("/")[0] for key in keys}
        # Each machine has put the list of all files.
        files = sorted({key.removeprefix(f"{name}/") for key in keys})
        store.write(WHOLE, json.dumps({"name": name, "files": files}).encode())
        for key in store.listing():
            if key != WHOLE and not key.startswith(f"{name}/"):
                store.drop(key)

    def keep(self, file: Path) -> None:
        """Upload a file of the study's folder, so that it outlives this node; nothing without a
        store."""
        if self.in_store:
            self.store.put(file, str(file.relative_to(self.path)))

    def _checkpoints_in_store(self, trial_id: str) -> ObjectStore:
        return self.store.part(f"{CHECKPOINTS}/{trial_id}")


def _is_at(number: int, path: Path) -> bool:
    """Whether an open file still has the name ``path``."""
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False


@cache
def this_driver() -> str:
    """Name of this process among all that run studies: its machine, a blank, and a number that no
    other has."""
    return f"{socket.gethostname()} {uuid.uuid4().hex}"


def local_storage(storage: str | Path) -> Path:
    """This machine's folder of what ``--storage`` names: the folder itself, or the copy of a store.

    Raises:
        BadInput: no cache folder can be written for the copy.
    """
    return local_copy(str(storage)) if is_store(storage) else Path(storage)


def study_names(storage: str | Path, file: str = SETTINGS) -> list[str]:
    """Names of the studies that have a file, on this machine."""
    return sorted(path.parent.name for path in local_storage(storage).glob(f"*/{file}"))


def unknown_study(name: str, allowed: Iterable[str]) -> BadInput:
    """Error for a study that does not exist, or that is named by the path of its folder."""
    with suppress(OSError, ValueError):  # too long, or no path at all
        folder = Path(name).resolve()
        if "/" in name and ((folder / SETTINGS).is_file() or (folder / RESULTS).is_file()):
            return BadInput(
                f"a study is named without its folder; give {folder.name} --storage {folder.parent}"
            )
    return unknown("study", name, allowed)


def _whole(trial: ObjectStore) -> tuple[str, list[str]]:
    """The last checkpoint that is in a trial's part of the store, and its files; nothing if there
    is none."""
    said = object_in(trial.read(WHOLE) or b"")
    name, files = said.get("name"), said.get("files")
    if not isinstance(name, str) or not isinstance(files, list):
        return "", []
    return name, [str(file) for file in files]
