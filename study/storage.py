"""Where studies are kept: in a folder that all nodes share, or in an object store.

With a folder there is nothing to do. With a store (``--storage s3://bucket/studies``) every node
works on a copy of its own, in its cache folder, and what must survive the node is put into the
store before anybody is told of it. An object is there whole or not at all, so a kill at any moment
leaves a study that can be resumed, on any machine.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from study.checkpoints import path as checkpoint
from study.objects import Store, is_store, local
from study.paths import STUDY, below
from study.records import Kind, TrialRecord
from study.settings import FILE as SETTINGS
from trainables.errors import BadInput

WHOLE = "whole"
"""The object that names the last checkpoint of a trial that is in the store with all its files."""
LEASE = "driver.json"
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 20.0
"""Without a beat for so long, a driver is taken for dead."""
JOURNAL = "optuna.journal"
"""As in study.ledger, which imports Optuna."""
BY_WORKERS = {"answers", "checkpoints"}
"""Folders of a study that its workers write."""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """The files of one study as a worker sees them. It travels to all nodes."""

    shared: Path
    """The study's folder, if all nodes share it."""
    url: str | None = None
    """Of the study in its store, if they don't."""

    @property
    def folder(self) -> Path:
        """The study's folder on this node."""
        if self.url is None:
            return self.shared
        storage, _, name = self.url.rpartition("/")
        return local(storage) / name

    def fetch_checkpoint(self, trial_id: str) -> Path:
        """The folder of a trial's checkpoints, with the last one in it if there is any."""
        folder = checkpoint(self.folder, trial_id)
        if self.url is not None:
            from trainables.kept import only_one

            self.folder.mkdir(parents=True, exist_ok=True)
            with only_one(below(self.folder, f".{trial_id}.lock")):  # ranks that share this machine
                self._fetch(trial_id, folder)
        return folder

    def _fetch(self, trial_id: str, folder: Path) -> None:
        """Make ``folder`` what the store has. What is here besides was never told of, and may be
        the part of one machine only."""
        from trainables import saved

        store = Store(self.url or "").below(f"checkpoints/{trial_id}")
        name, files = _whole(store)
        there = below(folder, name) if name else folder
        here = bool(files) and all(below(there, *file.split("/")).is_file() for file in files)
        if here and saved.complete(there):
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
        """Put what this machine has of a trial's last checkpoint into the store; its keys."""
        if self.url is None:
            return []
        folder = checkpoint(self.folder, trial_id)
        last = max(path for path in folder.glob("[0-9]*") if path.is_dir())
        files = sorted(str(f.relative_to(folder)) for f in last.rglob("*") if f.is_file())
        store = Store(self.url).below(f"checkpoints/{trial_id}")
        for file in files:
            store.put(folder / file, file)
        # Whoever goes on from it fetches it; until then it would only fill this node's disk.
        shutil.rmtree(folder)
        return files

    def keep_checkpoint(self, trial_id: str, keys: Collection[str]) -> None:
        """See that a trial's last checkpoint outlives its nodes, of which all have put their parts;
        call it before telling of it."""
        if self.url is None:
            return
        store = Store(self.url).below(f"checkpoints/{trial_id}")
        (name,) = {key.split("/")[0] for key in keys}
        # Each machine has put the list of all files.
        files = sorted({key.removeprefix(f"{name}/") for key in keys})
        store.write(WHOLE, json.dumps({"name": name, "files": files}).encode())
        for key in store.listing():
            if key != WHOLE and not key.startswith(f"{name}/"):
                store.drop(key)

    def keep(self, relative: Path) -> None:
        """See that a file of the study's folder outlives this node."""
        if self.url is not None:
            Store(self.url).put(self.folder / relative, str(relative))


class Mirror:
    """Keeps a study's store as the driver's folder is, and the study to one driver.

    An observer of the conductor, after those that write into the folder. A thread of its own
    writes; what it has not written when the driver is killed is done again by whoever resumes.
    """

    def __init__(self, url: str, name: str, say: Callable[[str], object] = print) -> None:
        self.shelf = Shelf(shared=local(url) / name, url=f"{url.rstrip('/')}/{name}")
        self.folder, self.store = self.shelf.folder, Store(f"{url.rstrip('/')}/{name}")
        self._me = f"{socket.gethostname()} {uuid.uuid4().hex}"
        self._say = say
        self._lost = ""
        """Why the study is not ours any more."""
        self._seen: dict[Path, tuple[int, int]] = {}
        """File -> its version in the store."""
        self._dropped: list[str] = []
        self._changed, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="storage", daemon=True)

    def __enter__(self) -> Mirror:
        """Take the study, and make this machine's copy what the store has.

        Raises:
            BadInput: the store cannot be written, or another driver runs the study.
        """
        Store(self.store.url.rpartition("/")[0]).check()
        self._take()
        _refresh(self.store, self.folder)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is left, and let others have the study.

        Raises:
            BadInput: the store cannot be written.
        """
        self._stop.set()
        self._changed.set()
        self._thread.join()
        if self._lost:
            return
        try:
            self._push(self.folder.rglob("*"))
            self.store.drop(LEASE)
        except OSError as error:
            if kind is None:
                line = str(error).strip().splitlines()[0]
                raise BadInput(
                    f"cannot write to --storage {self.store.url}: {line}; what it lacks is in "
                    f"{self.folder}, and --resume {self.folder.name} writes it"
                ) from None

    def started(self, record: TrialRecord) -> None:
        """The journal has it; the store will."""
        self._tell()

    def reported(self, record: TrialRecord) -> None:
        """As ``started``."""
        self._tell()

    def ended(self, record: TrialRecord) -> None:
        """As ``started``; a search trial's checkpoint has served."""
        if record.spec.kind is Kind.SEARCH:
            self._dropped.append(record.spec.id)
        self._tell()

    def fetch(self, confirmed: Collection[str]) -> None:
        """Get what workers have put into the store, once all trials have ended. Checkpoints of
        others than the confirmed trials are left from drivers that were killed: they go."""
        for key in self.store.listing("checkpoints"):
            if key.split("/")[1] not in confirmed:
                self.store.drop(key)
        _fetch_by_workers(self.store, self.folder)

    def _tell(self) -> None:
        if self._lost:
            raise BadInput(self._lost)
        self._changed.set()

    def _take(self) -> None:
        """A lease that is renewed is held; one that is not, its driver was killed."""
        before = self.store.read(LEASE)
        give_up = time.monotonic() + PATIENCE_SECONDS
        if before is not None:
            self._say(
                f"waiting {PATIENCE_SECONDS:.0f} seconds: does {_holder(before)} still run it?"
            )
        while before is not None and time.monotonic() < give_up:
            time.sleep(BEAT_SECONDS / 5)
            now = self.store.read(LEASE)
            if now is not None and now != before:
                raise BadInput(
                    f"study {self.folder.name!r} is running already, on {_holder(now)}; "
                    "give another --name"
                )
            before = now
        self._beat()

    def _beat(self) -> None:
        # In microseconds, always of one length: whoever reads while it is written over asks for the
        # length first, and would get a byte too many of a beat with a digit less.
        content = {"driver": self._me, "beat": time.time_ns() // 1000}
        self.store.write(LEASE, json.dumps(content).encode())

    # What follows runs in the writing thread, and once more at the end.

    def _work(self) -> None:
        while not self._stop.is_set():
            self._changed.wait(BEAT_SECONDS)
            try:
                self._keep_up()
            except OSError:  # tried again with the next beat; if it never ends, __exit__ says so
                self._stop.wait(BEAT_SECONDS)
            if self._lost:
                return

    def _keep_up(self) -> None:
        holder = self.store.read(LEASE)
        if holder is not None and json.loads(holder)["driver"] != self._me:
            self._lost = f"study {self.folder.name!r} was taken over, on {_holder(holder)}"
            return
        self._beat()
        if self._changed.is_set():
            self._changed.clear()
            dropped, self._dropped = self._dropped, []
            self._push(self.folder.iterdir())
            for trial_id in dropped:  # after the journal, which says that it has ended
                self.store.drop(f"checkpoints/{trial_id}")

    def _push(self, files: Iterable[Path]) -> None:
        """Put what has changed since it was last put; what workers made is there."""
        for file in sorted(files):
            key = file.relative_to(self.folder)
            if key.parts[0] in BY_WORKERS or key.name.startswith(".") or not file.is_file():
                continue
            stat = file.stat()
            version = (stat.st_mtime_ns, stat.st_size)
            if self._seen.get(key) != version:
                self.store.put(file, str(key))
                self._seen[key] = version


def _whole(trial: Store) -> tuple[str, list[str]]:
    """The last checkpoint that is in a trial's part of the store, and its files; nothing if there
    is none."""
    try:
        said = json.loads(trial.read(WHOLE) or b"null") or {"name": "", "files": []}
        return str(said["name"]), [str(file) for file in said["files"]]
    except (ValueError, KeyError, TypeError):
        return "", []


def fetch_names(url: str) -> Path:
    """This machine's copy of a store, with the settings of every study that is there.

    Raises:
        BadInput: the store cannot be read.
    """
    store, folder = Store(url), local(url)
    try:
        begun = [key for key in store.listing() if key.endswith(f"/{SETTINGS}")]
        for key in begun:
            store.get(key, below(folder, *key.split("/")))
    except (OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise BadInput(f"cannot read --storage {url}: {line}") from None
    return folder


def folder_of(storage: str, name: str) -> Path:
    """The folder that ``--storage`` names; or, if it names a store, this machine's copy, with all
    that the store has of study ``name``, what its workers put there included.

    Raises:
        BadInput: the store cannot be read.
    """
    if not is_store(storage):
        return Path(storage)
    folder = fetch_names(storage)
    if STUDY.fullmatch(name) and (folder / name / SETTINGS).is_file():
        store = Store(storage).below(name)
        _refresh(store, folder / name)
        _fetch_by_workers(store, folder / name)
    return folder


def _refresh(store: Store, folder: Path) -> None:
    """Make ``folder`` what the store has. Only if it goes on where the store ends, it stays: then
    the store was out of reach when this machine last wrote."""
    there = store.read(JOURNAL) or b""
    here = (folder / JOURNAL).read_bytes() if (folder / JOURNAL).exists() else b""
    if here and here.startswith(there) and store.read(SETTINGS) is not None:
        return
    files = {key: below(folder, *key.split("/")) for key in store.listing()}
    shutil.rmtree(folder, ignore_errors=True)
    for key, file in files.items():
        if key.split("/")[0] not in BY_WORKERS and key != LEASE:
            store.get(key, file)


def _fetch_by_workers(store: Store, folder: Path) -> None:
    for name in sorted(BY_WORKERS):
        for key in store.listing(name):
            file = below(folder, *key.split("/"))
            if file.name != WHOLE and not file.exists():
                store.get(key, file)


def _holder(lease: bytes) -> str:
    return str(json.loads(lease)["driver"]).split()[0]
