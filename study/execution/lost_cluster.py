"""Ends a study in one line when Ray is gone from the driver's machine, before Ray ends the process.

Where the raylet of its node or the GCS of its cluster is gone, Ray ends the driver's process, after
up to a minute and with many lines of its own. All that the study needs to go on is on the disk, so
the process may end at any moment.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import ray

LOOK_SECONDS = 0.5
"""Seconds between two questions, and longest time between two looks."""
SILENT_LOOKS = 90
"""Number of looks for which the GCS of a cluster that was there before may be away: Ray itself ends
the process after 60 seconds. Looks are counted, and not time, since a driver that was stopped or
whose machine slept has heard nothing meanwhile."""
_stopped = threading.Event()
"""Set where nobody watches any more, as before Ray is shut down."""


def watch(*, own: bool, then: Callable[[], str]) -> None:
    """End this process in one line, with exit code 2, if Ray dies on its machine before
    ``stop_watching`` is called.

    Args:
        own: whether Ray was started here, so that nobody will start it again.
        then: gives the advice what to do next, as in ``storage.faults``.
    """
    _stopped.clear()
    watching = _Watch(own=own, then=then)
    for work in (watching.ask, watching.look):
        threading.Thread(target=work, name="cluster", daemon=True).start()


def stop_watching() -> None:
    """Take no notice any more of what becomes of Ray: it is shut down now."""
    _stopped.set()


class _Watch:
    """Watches the raylet of this machine and the GCS, by two threads: a question to the GCS may
    hang."""

    def __init__(self, *, own: bool, then: Callable[[], str]) -> None:
        self.own, self.then = own, then
        context = ray.get_runtime_context()
        self.node = context.get_node_id()
        self.gcs = _address(context.gcs_address)
        (mine,) = (node for node in ray.nodes() if node["NodeID"] == self.node)
        self.raylet = (mine["NodeManagerAddress"], int(mine["NodeManagerPort"]))
        self.silent_looks = 0
        """Number of looks since the GCS last answered."""

    def ask(self) -> None:
        """Ask the GCS again and again whether this node is alive."""
        while not _stopped.wait(LOOK_SECONDS):
            with suppress(Exception):  # Ray's errors of a GCS that is away, which ``look`` counts
                alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
                self.silent_looks = 0
                if self.node not in alive:
                    self._end("Ray on this machine (its raylet) was given up by its cluster")

    def look(self) -> None:
        """Wait until a connection to the raylet or the GCS is closed, and look whether they are
        there then. A moment later Ray would print many lines."""
        lines = [_Line(self.raylet, "raylet")]
        if self.own:
            lines.append(_Line(self.gcs, "GCS"))
        while not _stopped.is_set():
            connections = [line.connection for line in lines if line.connection is not None]
            ready, _, _ = select.select(connections, [], [], LOOK_SECONDS)
            for line in lines:
                if line.connection in (None, *ready) and line.broken():
                    self._end(f"Ray on this machine (its {line.name}) has died")
            if not ready:
                self.silent_looks += 1
            if self.silent_looks >= SILENT_LOOKS:
                host, port = self.gcs
                self._end(f"the head of the Ray cluster (its GCS, {host}:{port}) does not answer")

    def _end(self, what: str) -> None:
        """End this process with a line that says what is gone."""
        if _stopped.is_set():
            return
        advice = self.then() or "give the same command again"
        with suppress(OSError, ValueError):  # nobody may read it
            sys.stdout.flush()
            print(f"error: {what}; nothing is lost: {advice}", file=sys.stderr, flush=True)
        os._exit(2)


def _address(text: str) -> tuple[str, int]:
    """Host and port of a text ``HOST:PORT``."""
    host, _, port = text.rpartition(":")
    return host, int(port)


class _Line:
    """A connection to a process, which the operating system closes when the process ends."""

    def __init__(self, address: tuple[str, int], name: str) -> None:
        self.address, self.name = address, name
        self.connection: socket.socket | None = None

    def broken(self) -> bool:
        """Whether nothing listens at the address any more. A process that is only slow refuses
        nothing, and one that closes the connection for its own reasons gets another."""
        with suppress(OSError):
            if self.connection is not None and self.connection.recv(2**16):
                return False
        try:
            self.connection = socket.create_connection(self.address, timeout=5)
        except ConnectionRefusedError:
            return True
        except OSError:
            self.connection = None
        return False
