"""Client side of processes that are forked from this machine's zygote (``study.worker.zygote``)."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from study.trials.text import wait_text
from trainables.devices.environment import still_seconds

if TYPE_CHECKING:
    from study.worker.host_config import HostConfig
    from study.worker.orders import AdvanceTrial, ForgetTrial, TrialReport


LOOKS = 20
"""Number of looks in ``still_seconds``. Looks are counted, and not time, so that nothing counts
against a process for which this one was stopped itself, or the machine slept."""


class Stillness:
    """Number of looks in a row at which a process had computed nothing since the look before.

    Loading, compiling, training and answering all take processor time, on a busy machine less of
    it. A process that takes none is stopped (SIGSTOP), or waits for something that does not come,
    as a file on a server that is away.
    """

    def __init__(self) -> None:
        self._looks, self._before = 0, -1.0

    def look(self, processor_seconds: float) -> bool:
        """Whether the process hangs, which by now has taken that much processor time."""
        self._looks = self._looks + 1 if processor_seconds <= self._before else 0
        self._before = processor_seconds
        return self._looks >= LOOKS


def processor_seconds(pid: int, *, children: bool = False) -> float:
    """Processor time in seconds that a process of this machine has taken; with ``children``, its
    children's too.

    Raises:
        psutil.Error: there is no such process.
    """
    process = psutil.Process(pid)
    times = process.cpu_times()
    taken: float = times.user + times.system
    for child in process.children() if children else []:
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            taken += times.user + times.system
    return taken


def receive(process: Connection, working: Callable[[], float]) -> Any:
    """The next message of another process of this machine.

    Args:
        process: connection to it.
        working: gives its processor time in seconds so far.

    Raises:
        EOFError: it has ended.
        TimeoutError: it hangs.
    """
    stillness = Stillness()
    while not process.poll(still_seconds() / LOOKS):
        if stillness.look(working()):
            raise TimeoutError(f"it has computed nothing for {wait_text(still_seconds())}")
    try:
        return process.recv()
    except ConnectionError as error:  # killed before it read all that was sent to it
        raise EOFError from error


def fork_of(zygote: Path) -> Connection:
    """Ask the zygote that listens at the socket ``zygote`` for a fork; return the connection to it.
    The fork prints to the standard output and error of this process.

    Raises:
        OSError: no zygote listens there, or it does not fork.
    """
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(zygote))
        socket.send_fds(end, [b"."], [1, 2])
        return Connection(end.detach())


class ForkedHost:
    """A host in a process forked from this machine's zygote, with the methods of ``Host``."""

    def __init__(self, zygote: Path, config: HostConfig, *, lost: Callable[[], object]) -> None:
        """Wait until the host is ready. ``lost`` is called when it has died.

        Raises:
            OSError, EOFError: no zygote listens there, or it does not fork.
        """
        self._process = fork_of(zygote)
        self._process.send((config, dict(os.environ)))
        self._pid: int = self._process.recv()
        self._sending = threading.Lock()
        self._replies: dict[int, Future[TrialReport]] = {}
        self._asked, self._lost = 0, lost
        threading.Thread(target=self._listen, name="host", daemon=True).start()

    def advance(self, order: AdvanceTrial) -> Future[TrialReport]:
        """Ask for a trial's next report, as ``Host.advance`` does."""
        reply: Future[TrialReport] = Future()
        with self._sending:
            self._asked += 1
            self._replies[self._asked] = reply
            self._process.send((self._asked, order))
        return reply

    def forget(self, order: ForgetTrial) -> None:
        """Make the host drop a trial, as ``Host.forget`` does."""
        with self._sending:
            self._process.send((0, order))

    def processor_seconds(self) -> float | None:
        """Processor time of the host, as ``Host.processor_seconds`` gives it."""
        return processor_seconds(self._pid) if self._replies else None

    def end(self) -> None:
        """Kill the host, which hangs."""
        os.kill(self._pid, signal.SIGKILL)

    def _listen(self) -> None:
        try:
            while True:
                number, report = self._process.recv()
                reply = self._replies.pop(number)
                if report is None:
                    reply.cancel()
                else:
                    reply.set_result(report)
        except Exception:  # mostly EOFError; after any error nobody reads replies
            self._lost()
