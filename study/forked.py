"""Processes forked from this machine's template (``study.template``), seen by who asks for them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.guest import HostConfig
    from study.placement import Placement


def fork_of(template: Path) -> Connection:
    """Ask for one; what it prints belongs to this process.

    Raises:
        OSError: there is no template here, or it does not fork.
    """
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(template))
        socket.send_fds(end, [b"."], [1, 2])
        return Connection(end.detach())


class Forked:
    """A host in a process that was forked from this machine's template; asked like ``Host``."""

    def __init__(self, template: Path, config: HostConfig, *, lost: Callable[[], object]) -> None:
        """Wait until it is there. ``lost`` is called when it has died.

        Raises:
            OSError, EOFError: there is no template here, or it does not fork.
        """
        self._process = fork_of(template)
        self._process.send((config, dict(os.environ)))
        self._process.recv()
        self._sending = threading.Lock()
        self._replies: dict[int, Future[dict[str, Any]]] = {}
        self._asked, self._lost = 0, lost
        threading.Thread(target=self._listen, name="host", daemon=True).start()

    def ask(
        self, spec: Mapping[str, Any], *, placement: Placement, heard: int, suspect: bool
    ) -> Future[dict[str, Any]]:
        """See ``Host.ask``."""
        reply: Future[dict[str, Any]] = Future()
        with self._sending:
            self._asked += 1
            self._replies[self._asked] = reply
            order = {"spec": spec, "placement": placement, "heard": heard, "suspect": suspect}
            self._process.send((self._asked, order))
        return reply

    def leave(self, trial_id: str) -> None:
        """See ``Host.leave``."""
        with self._sending:
            self._process.send((0, trial_id))

    def _listen(self) -> None:
        try:
            while True:
                number, report = self._process.recv()
                reply = self._replies.pop(number)
                if report is None:
                    reply.cancel()
                else:
                    reply.set_result(report)
        except Exception:  # mostly EOFError: whatever it was, nobody listens any more
            self._lost()
