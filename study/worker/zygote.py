"""A zygote: one process that loads model and data, and from which this machine's hosts are forked.

Importing torch, transformers and peft and loading a model take six seconds of a processor, and a
study has as many hosts as there are processors. So one process does it once, while Ray starts. The
driver imports none of these packages: it lets the zygote inspect the model
(``study.planning.workload_profile``) and write tuned models at the end. Hosts are forked from the
zygote (``study.worker.forked_host``): they are ready in milliseconds, share the memory of weights
and data, and are replaced as fast when one dies. On other machines, and where there is an
accelerator, which does not survive a fork, hosts load for themselves.

Threads and locks that a fork inherits are of no use to it, so the zygote has one thread and
computes nothing. It ends when the driver does, and the hosts that were forked from it end then too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import cached_property
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

import cloudpickle

from study.config import spaces
from study.storage import scratch
from study.worker.forked_host import fork_of, processor_seconds, receive
from study.worker.hardware import Hardware
from trainables import registry
from trainables.errors import BadInput
from trainables.model_lookup import family_of
from trainables.secrecy import format_traceback, without_secrets

if TYPE_CHECKING:
    from study.config.definition import StudyDefinition
    from study.planning.workload_profile import WorkloadProfile
    from study.worker.host_config import HostConfig
    from trainables.data.common.dataset import Dataset
    from trainables.workload import Workload

BACKLOG = 128
"""Number of hosts that may ask for a fork before the model is loaded."""
PROCESS = "import sys; from study.worker import zygote; zygote.main(sys.argv[1:])"
"""Python code of the zygote process."""


class Zygote:
    """The driver's handle of the zygote process."""

    def __init__(self, definition: StudyDefinition) -> None:
        self._opened = ExitStack()
        made = self._opened.enter_context(scratch.folder("zygote"))
        self.socket = made / "socket"
        """Socket at which hosts ask to be forked."""
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
        self._sending: list[threading.Thread] = []
        # By value, since a user's own space may have classes that no other process can import.
        self._send(cloudpickle.dumps(definition))

    def take(self, dataset: Dataset, hardware: Hardware | None = None) -> None:
        """Pass on the data, which the driver has read. ``hardware`` is that of the devices on which
        trials run, if they are not those of this machine."""
        self._send(pickle.dumps((dataset, hardware)))

    @cached_property
    def hardware(self) -> Hardware:
        """Hardware of this machine, which the zygote sends before the profile."""
        found: Hardware = self._receive()
        return found

    def profile(self) -> WorkloadProfile:
        """Profile of the loaded model and data.

        Raises:
            BadInput: they cannot be loaded, or a recipe does not suit the model.
        """
        assert self.hardware
        found: WorkloadProfile = self._receive()
        return found

    def do(self, task: Callable[[Workload], object]) -> None:
        """Let a fork of the zygote run a task with the loaded model, and wait until it is done.

        Raises:
            OSError, EOFError: the zygote does not fork, as where there is an accelerator, or the
                fork died.
            Exception: what the task raised.
        """
        with closing(fork_of(self.socket)) as fork:
            fork.send((task, dict(os.environ)))
            error = receive(fork, self._processor_seconds)
        if error is not None:
            raise error

    def close(self) -> None:
        """End the zygote, and the hosts that were forked from it."""
        self._process.kill()  # it may be in the middle of an import
        self._process.wait()
        for thread in self._sending:  # nobody reads what it writes, which ends it
            thread.join()
        self._connection.close()
        self._opened.close()

    def _send(self, message: bytes) -> None:
        """Send a message by a thread, after those before it: a process that is stopped takes none
        that is long. What became of one that was killed is said where its next message is read."""
        before = self._sending[-1:]

        def work() -> None:
            for thread in before:
                thread.join()
            with suppress(OSError):
                self._connection.send_bytes(message)

        thread = threading.Thread(target=work, name="zygote", daemon=True)
        self._sending.append(thread)
        thread.start()

    def _processor_seconds(self) -> float:
        """Processor time in seconds of the zygote and of its forks."""
        return processor_seconds(self._process.pid, children=True)

    def _receive(self) -> Any:
        """The zygote's next message; raise it if it is an exception."""
        try:
            found = receive(self._connection, self._processor_seconds)
        except EOFError:
            code = self._process.wait()
            raise BadInput(
                f"the process that loads the model was killed (exit code {code}), maybe for lack "
                "of memory; give the same command again"
            ) from None
        except TimeoutError as error:
            raise BadInput(
                f"the process that loads the model hangs: {error}; see that the model's folder and "
                "the hub can be read, and give the same command again"
            ) from None
        if isinstance(found, Exception):
            raise found
        return found


def main(ends: list[str]) -> None:
    """Run the zygote: load, report to the driver, and fork until the driver has ended. ``ends`` are
    the file descriptors of the connection to the driver and of the listening socket."""
    driver, listener = Connection(int(ends[0])), socket.socket(fileno=int(ends[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that end leave no zombies
    try:
        definition: StudyDefinition = pickle.loads(driver.recv_bytes())
        import torch

        torch.set_num_threads(1)
        here = Hardware.here(definition.precision)
        _tell(driver, here)
        dataset, hardware = driver.recv()
        hardware = hardware or here
        workload = _load(definition, hardware, dataset, resident=not here.devices)
        if here.devices:
            listener.close()
            _tell(driver, _profile(definition, workload, hardware))
            return
    except EOFError:
        return
    except Exception as error:  # the driver raises it
        _tell(driver, _sendable(error))
        return
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the memory that it looks at
    if _forked():
        try:
            _tell(driver, _profile(definition, workload, hardware))
        except Exception as error:  # the driver raises it
            _tell(driver, _sendable(error))
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


def _tell(driver: Connection, message: object) -> None:
    """Send the driver a message. One that has ended takes none, which is to show no traceback."""
    with suppress(ConnectionError):
        driver.send(message)


def _load(
    definition: StudyDefinition, hardware: Hardware, dataset: Dataset, *, resident: bool
) -> Workload:
    from trainables.packing import trial_group  # noqa: F401  # for hosts, before they fork
    from trainables.workload import Workload

    config = replace(definition.workload, precision=hardware.precision, resident=resident)
    workload = Workload.load(config, dataset)
    for division in range(definition.settings.splits):
        for asking in spaces.askings(definition.space, workload.asking):
            workload.divided(division).asked(asking)  # once for all hosts that are forked
    return workload


def _profile(
    definition: StudyDefinition, workload: Workload, hardware: Hardware
) -> WorkloadProfile:
    from study.planning.workload_profile import profile

    family, _ = family_of(definition.workload.model)
    found = profile(
        workload,
        definition.space,
        definition.budget,
        precision=hardware.precision,
        device=hardware.kind,
        regime=definition.regime,
    )
    follows = getattr(registry.FAMILIES.find(family), "FOLLOWS_INSTRUCTIONS", False)
    short = any(example.answer_type != "report" for example in workload.dataset.test)
    return replace(found, asked_briefly=follows and short)


def _sendable(error: Exception) -> Exception:
    """An error in a form that can be sent: ``BadInput`` as it is, any other as what it says, of
    which users are shown the first line, and its traceback."""
    if isinstance(error, BadInput):
        return error
    says = without_secrets(f"{type(error).__name__}: {error}")
    return RuntimeError(f"{says}\n{format_traceback(error)}")


def _forked() -> bool:
    """Fork this process; return True in the new one."""
    if os.fork():
        return False
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":  # elsewhere a fork ends when its client does
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the zygote
    return True


def _serve(end: socket.socket, workload: Workload) -> None:
    """Do in a fork what its client asks for: run a task, or a host until the client ends."""
    from study.worker.host_config import HostConfig

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
    except (EOFError, OSError):  # the client has ended
        os._exit(0)
    except BaseException as error:  # a fork must never go on as a second zygote
        print(format_traceback(error), file=sys.stderr, flush=True)
        os._exit(1)


def _be_host(asking: Connection, config: HostConfig, workload: Workload) -> NoReturn:
    """Run a host for the client.

    Raises:
        EOFError: the client has ended, or does not need the host any more.
    """
    from study.worker.host import Host
    from study.worker.orders import ForgetTrial, TrialReport

    host = Host(config, workload)
    asking.send(os.getpid())
    while True:
        number, order = asking.recv()
        if isinstance(order, ForgetTrial):
            host.forget(order)
            continue

        def answer(reply: Future[TrialReport], number: int = number) -> None:
            # Runs in the host's only thread, so no other thread sends.
            asking.send((number, None if reply.cancelled() else reply.result()))

        host.advance(order).add_done_callback(answer)


def _done(task: Callable[[Workload], object], workload: Workload) -> Exception | None:
    """Run a task; return what it raised, None if nothing."""
    try:
        task(workload)
    except Exception as error:  # the client raises it
        return _sendable(error)
    return None
