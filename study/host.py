"""What holds a device: long-lived, with the base model and the data, for trial after trial.

Trials come and go in milliseconds, several at a time on one resident base. Whoever asks for a
trial's next report waits for it; the trials train meanwhile, in a thread of their own.

The driver and the actors that speak for hosts import this module, so what is heavy is imported
where it is used.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from study.guest import HostConfig
from study.guests import Guests
from study.placement import Placement
from study.records import TrialSpec
from trainables.secrecy import traced

if TYPE_CHECKING:
    from trainables.workload import Workload


class Host:
    """Runs trials for whoever asks. Every way in which one can end is a report, not a crash."""

    def __init__(self, config: HostConfig, workload: Workload | None = None) -> None:
        """``workload`` if it was loaded already."""
        self.guests = Guests(config, workload)
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="lane", daemon=True).start()

    def ask(
        self, spec: Mapping[str, Any], *, placement: Placement, heard: int, suspect: bool
    ) -> Future[dict[str, Any]]:
        """A trial's next report, once there is one: ``rung``, ``outcome``, ``scores``, ``error``,
        ``costs``; or ``place``, a fault of the place, which ends no trial. A trial that is new here
        goes on from its checkpoint."""
        trial, reply = TrialSpec.of(spec), Future[dict[str, Any]]()
        self._orders.put(lambda: self.guests.take(trial, placement, heard, suspect, reply))
        return reply

    def leave(self, trial_id: str) -> None:
        """Forget a trial: it was stopped, or given up."""
        self._orders.put(lambda: self.guests.forget(trial_id))

    def _work(self) -> None:
        try:
            while True:
                while not (self.guests.training and self._orders.empty()):
                    self._orders.get()()
                self.guests.step()
        except BaseException as error:  # a host that no longer works must not look as if it did
            print(traced(error), file=sys.stderr, flush=True)
            os._exit(1)
