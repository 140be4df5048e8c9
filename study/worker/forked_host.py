"""Client side of processes that are forked from this machine's zygote (``study.worker.zygote``)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.worker.host_config import HostConfig
    from study.worker.orders import AdvanceTrial, ForgetTrial, TrialReport


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
        self._process.recv()
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
