"""One process that loads model and data, for the driver and for the hosts on its machine.

To import torch, transformers and peft and to load a model takes six seconds of a processor, and a
study has as many hosts as there are processors. So one process does it once, while Ray starts. The
driver has it look at the model (``study.survey.Survey``), and write tuned ones at the end, and
imports none of that; hosts are forked from it (``study.forked``): they are there in milliseconds,
share the memory of weights and data, and are back as fast when one dies. On other machines, and
where there is CUDA, which does not outlive a fork, hosts load for themselves.

What a fork inherits of threads and locks is of no use to it, so this process has one thread and
computes nothing. It ends when the driver does, and the hosts that were forked from it end then too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from study import spaces
from study.arithmetic import Arithmetic
from study.forked import fork_of
from trainables.errors import BadInput
from trainables.secrecy import traced

if TYPE_CHECKING:
    from study.guest import HostConfig
    from study.settings import Settings
    from study.survey import Survey
    from trainables.data.dataset import Dataset
    from trainables.workload import Workload

BACKLOG = 128
"""Hosts that may ask before the model is loaded."""
PROCESS = "import sys; from study import template; template.main(sys.argv[1:])"


# --- 1. The driver's end --------------------------------------------------------------------------


class Template:
    """Starts the process, and asks it."""

    def __init__(self, settings: Settings) -> None:
        self._folder = tempfile.mkdtemp(prefix="template-")  # which nobody else may enter
        self.socket = Path(self._folder, "socket")
        """Where hosts ask to be forked."""
        self._connection, theirs = Pipe()
        with theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.socket))
            listener.listen(BACKLOG)
            ends = theirs.fileno(), listener.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROCESS, *map(str, ends)],
                pass_fds=ends,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # an interruption is the driver's to handle
            )
        self._connection.send(settings)

    def take(self, dataset: Dataset, arithmetic: Arithmetic | None = None) -> None:
        """Give it the data, which the driver has read. ``arithmetic``: of the devices on which
        trials run, if they are others' than this machine's."""
        self._connection.send((dataset, arithmetic))

    @cached_property
    def arithmetic(self) -> Arithmetic:
        """How this machine computes; to be asked for before the survey."""
        found: Arithmetic = self._receive()
        return found

    def survey(self) -> Survey:
        """What it says of the model and the data.

        Raises:
            BadInput: they cannot be loaded, or a recipe does not suit the model.
        """
        assert self.arithmetic
        found: Survey = self._receive()
        return found

    def do(self, task: Callable[[Workload], object]) -> None:
        """Have a fork of it do something with the model, and wait until it is done.

        Raises:
            OSError, EOFError: it does not fork, as where there is CUDA, or the fork died.
            Exception: what the task raised.
        """
        with closing(fork_of(self.socket)) as fork:
            fork.send((task, dict(os.environ)))
            error = fork.recv()
        if error is not None:
            raise error

    def close(self) -> None:
        """End it, and the hosts that were forked from it."""
        self._connection.close()
        self._process.kill()  # it may be in the middle of an import
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> Any:
        try:
            found = self._connection.recv()
        except EOFError:
            raise RuntimeError("the process that loads the model has died") from None
        if isinstance(found, Exception):
            raise found
        return found


# --- 2. The process -------------------------------------------------------------------------------


def main(ends: list[str]) -> None:
    """Load, tell, and fork until the driver has ended."""
    driver, listener = Connection(int(ends[0])), socket.socket(fileno=int(ends[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that end
    try:
        settings = driver.recv()
        import torch

        torch.set_num_threads(1)
        here = Arithmetic.here(settings.precision)
        driver.send(here)
        dataset, arithmetic = driver.recv()
        arithmetic = arithmetic or here
        workload = _load(settings, arithmetic, dataset, resident=not here.cuda)
        if here.cuda:
            listener.close()
            driver.send(_survey(settings, workload, arithmetic))
            return
    except EOFError:
        return
    except Exception as error:  # the driver raises it
        driver.send(_sendable(error))
        return
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the memory that it looks at
    if _forked():
        try:
            driver.send(_survey(settings, workload, arithmetic))
        except Exception as error:  # the driver raises it
            driver.send(_sendable(error))
        os._exit(0)
    while True:
        ready, _, _ = select.select([driver.fileno(), listener.fileno()], [], [])
        if driver.fileno() in ready:
            return
        end, _ = listener.accept()
        if _forked():
            listener.close()
            driver.close()
            _serve(end, workload)
        end.close()


def _load(
    settings: Settings, arithmetic: Arithmetic, dataset: Dataset, *, resident: bool
) -> Workload:
    from trainables import lane  # noqa: F401  # what hosts import, so that they have it
    from trainables.workload import Workload

    config = replace(settings.workload, precision=arithmetic.precision, resident=resident)
    return Workload.load(config, dataset)


def _survey(settings: Settings, workload: Workload, arithmetic: Arithmetic) -> Survey:
    from study.survey import survey

    space = spaces.load(settings.space)
    budget = settings.budget(space)
    return survey(
        workload,
        space,
        budget,
        precision=arithmetic.precision,
        device="cuda" if arithmetic.cuda else "cpu",
        regime=settings.regime,
    )


def _sendable(error: Exception) -> Exception:
    """What a user can mend as it is; of anything else the traceback."""
    if isinstance(error, BadInput):
        return error
    return RuntimeError(traced(error))


def _forked() -> bool:
    """Fork; whether this is the new process."""
    if os.fork():
        return False
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":  # elsewhere it ends when nobody is left to talk to
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the template
    return True


def _serve(end: socket.socket, workload: Workload) -> None:
    """Do what whoever asked has to be done: be their host, until they have ended, or a task."""
    from study.guest import HostConfig

    _, outputs, _, _ = socket.recv_fds(end, 1, 2)
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
        os.close(output)
    asking = Connection(end.detach())
    try:
        asked, environment = asking.recv()
        os.environ.clear()
        os.environ.update(environment)
        if isinstance(asked, HostConfig):
            _be_host(asking, asked, workload)
        asking.send(_done(asked, workload))
        os._exit(0)
    except (EOFError, OSError):  # whoever asked has ended
        os._exit(0)
    except BaseException as error:  # a fork must never go on as a second template
        print(traced(error), file=sys.stderr, flush=True)
        os._exit(1)


def _be_host(asking: Connection, config: HostConfig, workload: Workload) -> NoReturn:
    """Raises ``EOFError`` when it is not needed any more."""
    from study.host import Host

    host = Host(config, workload)
    asking.send(None)
    while True:
        number, order = asking.recv()
        if isinstance(order, str):
            host.leave(order)
            continue

        def answer(reply: Future[dict[str, Any]], number: int = number) -> None:
            # In the host's one thread, so nobody else is sending.
            asking.send((number, None if reply.cancelled() else reply.result()))

        host.ask(**order).add_done_callback(answer)


def _done(task: Callable[[Workload], object], workload: Workload) -> Exception | None:
    """Do it; what it raised."""
    try:
        task(workload)
    except Exception as error:  # whoever asked raises it
        return _sendable(error)
    return None
