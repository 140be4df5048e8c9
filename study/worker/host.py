"""A host: a long-lived process that keeps base model and data on a device and trains trials.

Trials come and go in milliseconds, several at a time on one resident base. A client that asks for a
trial's next report waits for it; the trials train meanwhile, in a thread of their own.

The driver and the Ray actors of hosts import this module, so heavy packages are imported where they
are used.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, ForgetTrial, TrialReport
from study.worker.resident_trials import ResidentTrials
from trainables.secrecy import format_traceback

if TYPE_CHECKING:
    from trainables.workload import Workload


class Host:
    """Trains trials for its clients. However a trial ends, the end is a report and not a crash."""

    def __init__(self, config: HostConfig, workload: Workload | None = None) -> None:
        """``workload`` is the model with its data, if it is loaded already."""
        self.residents = ResidentTrials(config, workload)
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._asked: set[Future[TrialReport]] = set()
        self._thread = threading.Thread(target=self._work, name="trials", daemon=True)
        self._thread.start()

    def advance(self, order: AdvanceTrial) -> Future[TrialReport]:
        """A trial's next report, once there is one. A trial that is new here goes on from its
        checkpoint."""
        reply = Future[TrialReport]()
        self._asked.add(reply)
        reply.add_done_callback(self._asked.discard)
        self._orders.put(lambda: self.residents.advance(order, reply))
        return reply

    def forget(self, order: ForgetTrial) -> None:
        """Drop a trial that was stopped or given up."""
        self._orders.put(lambda: self.residents.forget(order.trial_id))

    def processor_seconds(self) -> float | None:
        """Processor time in seconds that training has taken; None while no client waits for a
        report, or where the system cannot say it of one thread (macOS)."""
        if not self._asked or self._thread.ident is None or sys.platform != "linux":
            return None
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))

    def end(self) -> None:
        """End this process, whose thread hangs."""
        os._exit(1)

    def _work(self) -> None:
        try:
            while True:
                while not (self.residents.training and self._orders.empty()):
                    self._orders.get()()
                self.residents.step()
        except BaseException as error:  # a host that no longer works must not look as if it did
            print(format_traceback(error), file=sys.stderr, flush=True)
            os._exit(1)
