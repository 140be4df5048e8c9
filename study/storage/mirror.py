"""Mirrors a study's folder to an object store, so that any machine can resume the study.

With a folder that all nodes share there is nothing to do. With a store (``--storage
s3://bucket/studies``) every node works on a copy of its own, in its cache folder. What must survive
the node is put into the store before anything is reported that relies on it. An object is in the
store whole or not at all, so a kill at any moment leaves a study that can be resumed.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from study.storage import lease
from study.storage.lease import LEASE, Lease
from study.storage.object_store import ObjectStore, is_store
from study.storage.paths import safe_join
from study.storage.study_folder import (
    ANSWERS,
    CHECKPOINTS,
    JOURNAL,
    SETTINGS,
    WHOLE,
    StudyFolder,
    local_storage,
)
from study.trials.callback import StudyCallback
from study.trials.record import TrialRecord
from study.trials.spec import Kind
from trainables.errors import BadInput

BY_WORKERS = {ANSWERS, CHECKPOINTS}
"""Folders of a study that its workers write."""


class StoreMirror(StudyCallback):
    """Keeps a study's store equal to the driver's folder, and the study to one driver.

    It is a callback of the scheduler and comes after those that write into the folder. A thread of
    its own writes to the store. What it has not written when the driver is killed is done again by
    the driver that resumes.
    """

    def __init__(self, study_folder: StudyFolder, say: Callable[[str], object] = print) -> None:
        self.study_folder = study_folder
        self.folder, self.store = study_folder.path, study_folder.store
        self._lease = Lease(self.store, study_folder.name, say)
        self._lost = ""
        """Reason why this driver does not hold the study any more; empty while it does."""
        self._seen: dict[Path, tuple[int, int]] = {}
        """File -> version that the store has: time of change in nanoseconds, and size in bytes."""
        self._dropped: list[str] = []
        self._changed, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="storage", daemon=True)

    @property
    def driver(self) -> str:
        """Name of this driver in the study's lease."""
        return self._lease.driver

    def __enter__(self) -> StoreMirror:
        """Take the lease of the study, and make this machine's copy equal to the store.

        Raises:
            BadInput: the store cannot be written, or another driver runs the study.
        """
        ObjectStore(str(self.study_folder.storage)).check()
        self._lease.take()
        _refresh(self.store, self.folder)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is left, and drop the lease, so that another driver can take the study.

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
            self._lease.drop()
        except OSError as error:
            if kind is None:
                line = str(error).strip().splitlines()[0]
                raise BadInput(
                    f"cannot write to --storage {self.store.url}: {line}; what it lacks is in "
                    f"{self.folder}, and --resume {self.folder.name} writes it"
                ) from None

    def started(self, record: TrialRecord) -> None:
        """Have the store updated: the journal has a new trial."""
        self._tell()

    def reported(self, record: TrialRecord) -> None:
        """Have the store updated: the journal has a new rung."""
        self._tell()

    def ended(self, record: TrialRecord) -> None:
        """Have the store updated: the journal has the trial's end. A search trial's checkpoints are
        deleted, since nobody needs them any more."""
        if record.spec.kind is Kind.SEARCH:
            self._dropped.append(record.spec.id)
        self._tell()

    def fetch(self, confirmed: Collection[str]) -> None:
        """Download what workers have put into the store, once all trials have ended. Checkpoints of
        all but the ``confirmed`` trials are deleted there: they are left from drivers that were
        killed."""
        for key in self.store.listing(CHECKPOINTS):
            if key.split("/")[1] not in confirmed:
                self.store.drop(key)
        _fetch_by_workers(self.store, self.folder)

    def fetch_answers(self) -> None:
        """Download the answers of trials, which workers have put into the store."""
        _fetch_by_workers(self.store, self.folder, {ANSWERS})

    def _tell(self) -> None:
        if self._lost:
            raise BadInput(self._lost)
        self._changed.set()

    # The methods below run in the writing thread, and ``_push`` once more at the end.

    def _work(self) -> None:
        while not self._stop.is_set():
            self._changed.wait(lease.BEAT_SECONDS)
            try:
                self._keep_up()
            except OSError:  # tried again with the next beat; if it never ends, __exit__ says so
                self._stop.wait(lease.BEAT_SECONDS)
            if self._lost:
                return

    def _keep_up(self) -> None:
        if other := self._lease.taken_over_by():
            self._lost = f"study {self.folder.name!r} was taken over, on {other}"
            return
        self._lease.renew()
        if self._changed.is_set():
            self._changed.clear()
            dropped, self._dropped = self._dropped, []
            self._push(self.folder.iterdir())
            for trial_id in dropped:  # after the journal, which says that it has ended
                self.store.drop(f"{CHECKPOINTS}/{trial_id}")

    def _push(self, files: Iterable[Path]) -> None:
        """Upload the files that have changed since they were last uploaded. The workers' files are
        in the store already."""
        for file in sorted(files):
            key = file.relative_to(self.folder)
            if key.parts[0] in BY_WORKERS or key.name.startswith(".") or not file.is_file():
                continue
            stat = file.stat()
            version = (stat.st_mtime_ns, stat.st_size)
            if self._seen.get(key) != version:
                self.store.put(file, str(key))
                self._seen[key] = version


def fetch_settings(storage: str) -> Path:
    """This machine's folder of what ``--storage`` names. If that is a store, the settings of every
    study are downloaded first.

    Raises:
        BadInput: the store cannot be read.
    """
    folder = local_storage(storage)
    if is_store(storage):
        store = ObjectStore(storage)
        try:
            for key in store.listing():
                if key.endswith(f"/{SETTINGS}"):
                    store.get(key, safe_join(folder, *key.split("/")))
        except (OSError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise BadInput(f"cannot read --storage {storage}: {line}") from None
    return folder


def fetch_study(storage: str, name: str) -> StudyFolder:
    """The study ``name`` in what ``--storage`` names. If that is a store, everything that it has of
    the study is downloaded first, the workers' files included.

    Raises:
        BadInput: the store cannot be read.
    """
    fetch_settings(storage)
    found = StudyFolder(storage=storage, name=name)
    if found.in_store and found.begun:
        _refresh(found.store, found.path)
        _fetch_by_workers(found.store, found.path)
    return found


def _refresh(store: ObjectStore, folder: Path) -> None:
    """Make ``folder`` equal to the store. It is left alone only if its journal begins with the
    whole journal of the store: then the store was out of reach when this machine last wrote."""
    in_store = store.read(JOURNAL) or b""
    on_disk = (folder / JOURNAL).read_bytes() if (folder / JOURNAL).exists() else b""
    if on_disk and on_disk.startswith(in_store) and store.read(SETTINGS) is not None:
        return
    files = {key: safe_join(folder, *key.split("/")) for key in store.listing()}
    shutil.rmtree(folder, ignore_errors=True)
    for key, file in files.items():
        if key.split("/")[0] not in BY_WORKERS and key != LEASE:
            store.get(key, file)


def _fetch_by_workers(
    store: ObjectStore, folder: Path, parts: Collection[str] = frozenset(BY_WORKERS)
) -> None:
    for name in sorted(parts):
        for key in store.listing(name):
            file = safe_join(folder, *key.split("/"))
            if file.name != WHOLE and not file.exists():
                store.get(key, file)
