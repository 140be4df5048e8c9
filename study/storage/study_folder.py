"""Folder of a study: its files as a worker sees them, and the lock of its driver."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from study.storage.checkpoints import path as checkpoint
from study.storage.object_store import ObjectStore, local
from study.storage.paths import below
from trainables.errors import BadInput


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Refuse to run a study that another process is running on this machine.

    Raises:
        BadInput: another process holds the lock.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(
                f"study {folder.name!r} is running already; give another --name"
            ) from None
        yield


SETTINGS = "study.json"

WHOLE = "whole"
"""Name of the object that says which checkpoint of a trial is in the store with all its files."""


@dataclass(frozen=True, kw_only=True)
class StudyFolder:
    """Files of one study as a worker sees them. The object is sent to all nodes."""

    shared: Path
    """The study's folder, if all nodes share it."""
    url: str | None = None
    """URL of the study in its object store; None if all nodes share a folder."""

    @property
    def folder(self) -> Path:
        """The study's folder on this node."""
        if self.url is None:
            return self.shared
        storage, _, name = self.url.rpartition("/")
        return local(storage) / name

    def fetch_checkpoint(self, trial_id: str) -> Path:
        """Folder of a trial's checkpoints, with the last one in it if there is any."""
        folder = checkpoint(self.folder, trial_id)
        if self.url is not None:
            from trainables.cache.arrays import file_lock

            self.folder.mkdir(parents=True, exist_ok=True)
            with file_lock(below(self.folder, f".{trial_id}.lock")):  # ranks share this machine
                self._fetch(trial_id, folder)
        return folder

    def _fetch(self, trial_id: str, folder: Path) -> None:
        """Make ``folder`` what the store has. What is here besides was never told of, and may be
        the part of one machine only."""
        from trainables.training import checkpoint

        store = ObjectStore(self.url or "").below(f"checkpoints/{trial_id}")
        name, files = _whole(store)
        there = below(folder, name) if name else folder
        here = bool(files) and all(below(there, *file.split("/")).is_file() for file in files)
        if here and checkpoint.complete(there):
            return
        shutil.rmtree(folder, ignore_errors=True)
        partial = folder / f"partial-{name}"
        try:
            for file in files:
                store.get(f"{name}/{file}", below(partial, *file.split("/")))
        except FileNotFoundError:  # then it is none, and the trial begins anew
            return
        if partial.is_dir():
            partial.rename(there)

    def put_checkpoint(self, trial_id: str) -> list[str]:
        """Upload this machine's part of a trial's last checkpoint to the store, and return its
        keys. Without a store nothing is done, and there are none."""
        if self.url is None:
            return []
        folder = checkpoint(self.folder, trial_id)
        last = max(path for path in folder.glob("[0-9]*") if path.is_dir())
        files = sorted(str(f.relative_to(folder)) for f in last.rglob("*") if f.is_file())
        store = ObjectStore(self.url).below(f"checkpoints/{trial_id}")
        for file in files:
            store.put(folder / file, file)
        # Whoever goes on from it downloads it; until then it would only fill this node's disk.
        shutil.rmtree(folder)
        return files

    def keep_checkpoint(self, trial_id: str, keys: Collection[str]) -> None:
        """Declare a trial's last checkpoint whole in the store, and delete older ones. ``keys`` are
        those of the parts that all nodes have put there. Call it before the rung is reported, so
        that a checkpoint that is relied on outlives its nodes."""
        if self.url is None:
            return
        store = ObjectStore(self.url).below(f"checkpoints/{trial_id}")
        (name,) = {key.split("/")[0] for key in keys}
        # Each machine has put the list of all files.
        files = sorted({key.removeprefix(f"{name}/") for key in keys})
        store.write(WHOLE, json.dumps({"name": name, "files": files}).encode())
        for key in store.listing():
            if key != WHOLE and not key.startswith(f"{name}/"):
                store.drop(key)

    def keep(self, relative: Path) -> None:
        """Upload a file of the study's folder, so that it outlives this node; nothing without a
        store."""
        if self.url is not None:
            ObjectStore(self.url).put(self.folder / relative, str(relative))


def _whole(trial: ObjectStore) -> tuple[str, list[str]]:
    """The last checkpoint that is in a trial's part of the store, and its files; nothing if there
    is none."""
    try:
        said = json.loads(trial.read(WHOLE) or b"null") or {"name": "", "files": []}
        return str(said["name"]), [str(file) for file in said["files"]]
    except (ValueError, KeyError, TypeError):
        return "", []
