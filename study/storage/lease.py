"""Lease of a study in an object store, so that one driver at a time runs the study.

An object store has no locks. A driver writes its name and the time into an object of the study, and
writes it again every few seconds. Whoever finds the object waits to see whether it changes.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from study.storage.object_store import ObjectStore
from study.storage.study_folder import LEASE
from trainables.errors import BadInput

BEAT_SECONDS = 5.0
"""Seconds between two renewals of a lease."""
TIMEOUT_SECONDS = 20.0
"""Seconds without a renewal after which a driver is taken for dead."""


class Lease:
    """This process's lease of a study."""

    def __init__(
        self,
        store: ObjectStore,
        study: str,
        say: Callable[[str], object] = print,
        otherwise: str = "give another --name",
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
    def held(self) -> Iterator[None]:
        """Take the lease, renew it by a thread while the block runs, and give it back.

        Raises:
            BadInput: another driver runs the study.
        """
        self.take()
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(BEAT_SECONDS):
                with suppress(OSError):  # tried again with the next beat
                    self.renew()

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            with suppress(OSError):
                self.drop()


def driver(lease: bytes) -> str:
    """Name of the driver that holds a lease, as in ``Lease.driver``; empty if it is unreadable."""
    return str(_read(lease).get("driver", ""))


def holder(lease: bytes) -> str:
    """Machine of the driver that holds a lease."""
    return driver(lease).partition(" ")[0] or "a machine whose name cannot be read"


def beats(lease: bytes) -> bool:
    """Whether a lease was renewed lately, by this machine's clock. It is a guess for showing only:
    clocks may differ."""
    beat = _read(lease).get("beat", 0)
    age = time.time() - beat / 1e6 if isinstance(beat, int) else math.inf
    return abs(age) < TIMEOUT_SECONDS


def _read(lease: bytes) -> dict[str, Any]:
    """Content of a lease; nothing if it is damaged, as an upload that was cut short."""
    try:
        found = json.loads(lease)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
