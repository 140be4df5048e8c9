"""Lease of a study, so that one driver at a time runs the study, where there are no locks.

An object store has no locks, and some network file systems have none either. A driver writes its
name and the time into an object, or a file, of the study, and writes it again every few seconds.
Whoever finds it waits to see whether it changes.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from study.storage.paths import partial_path
from trainables.cache import regular_file
from trainables.errors import BadInput, printable
from trainables.stored_json import object_in

LEASE = "driver.json"
"""Name of the object, or the file, in the study."""
BEAT_SECONDS = 5.0
"""Seconds between two renewals of a lease."""
FOLLOW = "study.status says how far it is; another study needs another --name"
"""What one can do beside a driver that runs the study."""
TIMEOUT_SECONDS = 20.0
"""Seconds without a renewal after which a driver is taken for dead."""


class LeaseStore(Protocol):
    """What a lease is written to: a study's part of an object store, or ``LeaseFolder``."""

    def read(self, key: str) -> bytes | None:
        """Content under a name; None if there is none."""

    def write(self, key: str, content: bytes) -> None:
        """Write under a name, whole or not at all."""

    def drop(self, prefix: str) -> None:
        """Remove what has a name."""


class LeaseFolder:
    """A study's folder on a file system without locks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, key: str) -> bytes | None:
        """Content of a file; None if there is none."""
        try:
            return regular_file.content(self.path / key)
        except FileNotFoundError:
            return None

    def write(self, key: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        partial = partial_path(self.path / key)
        partial.write_bytes(content)
        partial.replace(self.path / key)

    def drop(self, prefix: str) -> None:
        """Remove a file."""
        (self.path / prefix).unlink(missing_ok=True)


class Lease:
    """This process's lease of a study."""

    def __init__(
        self,
        store: LeaseStore,
        study: str,
        say: Callable[[str], object] = print,
        otherwise: str = FOLLOW,
    ) -> None:
        """``store`` is the study's part of the store. ``say`` shows the user a line; ``otherwise``
        says what to do if another driver runs the study."""
        self.store, self.study, self.otherwise = store, study, otherwise
        self.driver = f"{socket.gethostname()} {uuid.uuid4().hex}"
        """Name of this driver: its machine, a blank, and a number that no other has."""
        self._say = say

    def take(self) -> None:
        """Take the lease. A lease that is renewed is held by a running driver; the driver of one
        that is not was killed.

        Raises:
            BadInput: another driver runs the study.
        """
        before = self.store.read(LEASE)
        give_up = time.monotonic() + TIMEOUT_SECONDS
        if before is not None:
            self._say(f"waiting {TIMEOUT_SECONDS:.0f} seconds: does {holder(before)} still run it?")
        while before is not None and time.monotonic() < give_up:
            time.sleep(BEAT_SECONDS / 5)
            now = self.store.read(LEASE)
            if now is not None and now != before:
                raise BadInput(
                    f"study {self.study!r} is running already, on {holder(now)}; {self.otherwise}"
                )
            before = now
        self.renew()

    def renew(self) -> None:
        """Say that this driver still runs the study."""
        # In microseconds, so that its length is always the same. A reader asks for the length
        # first; if the object is written over meanwhile, a shorter one would make it read past the
        # end.
        content = {"driver": self.driver, "beat": time.time_ns() // 1000}
        self.store.write(LEASE, json.dumps(content).encode())

    def drop(self) -> None:
        """Give the lease back."""
        self.store.drop(LEASE)

    def taken_over_by(self) -> str:
        """Machine of another driver that has taken the lease; empty if none has."""
        found = self.store.read(LEASE)
        lost = found is not None and driver(found) != self.driver
        return holder(found) if found is not None and lost else ""

    @contextmanager
    def held(self, lost: Callable[[str], object] = str) -> Iterator[None]:
        """Take the lease, renew it by a thread while the block runs, and give it back. If another
        driver has taken it meanwhile, as it may while this process is stopped or its machine
        sleeps, ``lost`` is called in the thread with the name of the other's machine.

        Raises:
            BadInput: another driver runs the study.
        """
        self.take()
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(BEAT_SECONDS):
                with suppress(OSError):  # tried again with the next beat
                    if other := self.taken_over_by():
                        lost(other)
                        return
                    self.renew()

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            with suppress(OSError):
                if not self.taken_over_by():
                    self.drop()


def driver(lease: bytes) -> str:
    """Name of the driver that holds a lease, as in ``Lease.driver``; empty if it is unreadable."""
    return printable(str(object_in(lease).get("driver", "")))


def holder(lease: bytes) -> str:
    """Machine of the driver that holds a lease."""
    return driver(lease).partition(" ")[0] or "a machine whose name cannot be read"


def beats(lease: bytes) -> bool:
    """Whether a lease was renewed lately, by this machine's clock. It is a guess for showing only:
    clocks may differ."""
    beat = object_in(lease).get("beat", 0)
    now = int(time.time() * 1e6)  # whole: a number in a damaged lease may be too large for another
    return isinstance(beat, int) and abs(now - beat) < TIMEOUT_SECONDS * 1e6
