"""Joins a study's Ray cluster, inspects its nodes, and waits for actors whose node may be lost."""

from __future__ import annotations

import atexit
import ctypes
import gc
import math
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import ray
from ray._private import ray_constants
from ray._private.node import Node
from ray.exceptions import ActorUnavailableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.execution import lost_cluster
from study.execution.ray_token import own_token
from study.planning.cluster_partition import ClusterPartition
from study.storage import scratch
from study.worker.hardware import Hardware
from trainables.command import ENDING
from trainables.errors import BadInput
from trainables.secrecy import without_secrets

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
"""Ray's log is for its developers; what a user must know of a trial is in its outcome."""
_opened = ExitStack()
"""What is open as long as Ray is."""
LONGEST_LINE = 300
"""Largest number of letters of an error of Ray's that are shown."""
AGAIN_SECONDS = 0.5
"""Seconds between two calls to an actor whose node may be lost."""
_started: list[Callable[[], None]] = []
"""Ends Ray's processes that were started here, as long as there are any."""
SHUTDOWN_SECONDS = 30.0
"""Time that Ray has to shut down. It takes one or two seconds."""
UNNEEDED = ("start_monitor", "start_log_monitor", "start_api_server")
"""Methods of Ray's ``Node`` that start its autoscaler, what forwards logs to a driver, and the
server of its dashboard: three Python processes, for the last of which Ray's start waits."""
AT_ONCE_SECONDS = 10.0
"""A start of Ray that fails within so many seconds would fail again. One that takes longer has
waited for a process that was too slow: its raylet waits 15 seconds for its agents."""


def connect(address: str | None, say: Callable[[str], None] = print) -> None:
    """Join the Ray cluster at ``address`` or, if that is None, start one on this machine. Do
    nothing if Ray is initialised already.

    Args:
        address: of a cluster.
        say: shows the user a line: that Ray is started once more.

    Raises:
        BadInput: there is no cluster at that address, or Ray does not start.
    """
    if ray.is_initialized():
        return
    ray._private.worker.print_to_stdstream = _nothing  # else it prints what is in its logs too
    with _own_signals():
        if address is None:
            with _replaced(Node, **dict.fromkeys(UNNEEDED, _nothing)):
                _start(say)
        else:
            _join(address)
        atexit.register(_at_exit)


def _join(address: str) -> None:
    """Join the Ray cluster at ``address``."""
    try:
        ray.init(address=address, **QUIET)
    except Exception as error:  # Ray raises Exception itself
        raise BadInput(
            f"no Ray cluster at --address {address!r} ({_told(error)}); leave it away to start one "
            "here (a cluster with token authentication wants RAY_AUTH_MODE=token and its "
            "RAY_AUTH_TOKEN)"
        ) from None


def _start(say: Callable[[str], None]) -> None:
    """Start Ray on this machine, once more if it did not start in time, as on a busy machine, or if
    a process of it was killed. What the first start has read of files is in the machine's memory
    then.

    Ray leaves the folder of its session. So that folder lies in one that is removed after Ray is
    shut down, or by a later command if this process is killed, be it while Ray starts.

    Args:
        say: shows the user a line.

    Raises:
        BadInput: Ray does not start. Its logs are kept.
    """
    # As Ray does it on macOS: a cluster of this machine alone listens to nobody else.
    ray_constants.ENABLE_RAY_CLUSTER = False
    with ExitStack() as opened:
        place = opened.enter_context(scratch.folder("ray"))
        opened.enter_context(own_token(place))
        end_processes = partial(_end_processes, place)
        opened.callback(end_processes)
        opened.callback(ray.shutdown)  # if an interrupt comes at the end of its start
        start = partial(
            ray.init, address="local", include_dashboard=False, _temp_dir=str(place), **QUIET
        )
        began = time.monotonic()
        with _noted_nodes() as begun:
            try:
                start()
            except Exception as error:  # Ray raises Exception itself if it does not start in time
                killed = _killed(begun)
                end_processes()
                if not killed and time.monotonic() - began < AT_ONCE_SECONDS:
                    raise _no_start(error, place) from None
                say(
                    f"{killed or 'Ray did not start in time: this machine may be busy'}; it is "
                    "started once more"
                )
                begun.clear()
                try:
                    start()
                except Exception as again:  # as above
                    raise _no_start(again, place, _killed(begun)) from None
        _started.append(end_processes)
        _opened.push(opened.pop_all())


@contextmanager
def _noted_nodes() -> Iterator[list[Node]]:
    """List to which each node of Ray that is started in the block is added. Ray does not give back
    one that fails."""
    begun: list[Node] = []
    start: Callable[[Node], None] = Node.start_head_processes

    def noted(node: Node) -> None:
        begun.append(node)
        start(node)

    with _replaced(Node, start_head_processes=noted):
        yield begun


def _killed(begun: list[Node]) -> str:
    """What is said of a process of a node that a signal ended while Ray started; nothing if none
    was. A raylet that gives up, because its agents are too slow, ends itself by SIGABRT."""
    for node in begun:
        for kind, process in node.dead_processes():
            number = -process.returncode
            if number > 0 and number != signal.SIGABRT:
                name = signal.Signals(number).name
                memory = ", perhaps for want of memory" if number == signal.SIGKILL else ""
                return f"Ray's process {kind} was ended by {name} while Ray started{memory}"
    return ""


def _no_start(error: Exception, place: Path, killed: str = "") -> BadInput:
    """Error that says why Ray does not start: ``killed``, if a process of it was. Its logs are
    moved from its temporary folder to one that stays."""
    logs, seen = (place / "session_latest").resolve() / "logs", ""
    if logs.is_dir():
        kept = shutil.move(logs, tempfile.mkdtemp(prefix="ray-logs-", dir=place.parent))
        seen = f"see {kept}, and "
    return BadInput(
        f"Ray does not start on this machine ({killed or _told(error)})"
        f"{'' if killed else '; it may be too busy'}: {seen}give the same command again"
    )


def _end_processes(place: Path) -> None:
    """End what this process has started of Ray in a temporary folder."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended by itself
            if str(place) in " ".join(process.cmdline()):
                process.kill()


def _told(error: Exception) -> str:
    """What the user is told of an error of Ray's: its first line, without secrets."""
    return without_secrets(str(error).strip().partition("\n")[0][:LONGEST_LINE])


def _nothing(*arguments: Any, **options: Any) -> None:
    """Do nothing."""


@contextmanager
def _replaced(owner: Any, **functions: Callable[..., Any]) -> Iterator[None]:
    """Let functions of a module or a class of Ray's be others in the block."""
    kept = {name: getattr(owner, name) for name in functions}
    for name, function in functions.items():
        setattr(owner, name, function)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(owner, name, function)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's way to handle signals while the block starts or joins Ray, which would
    set a handler of SIGTERM that exits. Processes that start in the block do not end with the
    terminal: else Ray would be gone before the study has put away what it has."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    worker, utils = ray._private.worker, ray._private.utils
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # processes inherit it
    try:
        with (
            _replaced(worker, connect=_held(worker.connect)),
            _replaced(utils, set_sigterm_handler=_nothing),
        ):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _held(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Ray's ``connect``, with signals that ask this process to end taken once it has returned: Ray
    ends the process by a segmentation fault if this is interrupted. Of a SIGTERM that comes
    meanwhile Ray's C code prints where it came."""

    def run(*arguments: Any, **options: Any) -> Any:
        held: list[int] = []

        def hold(number: int, frame: FrameType | None) -> None:
            signal.alarm(0)  # by which Ray's C code would end this process after three seconds
            held.append(number)

        usual = {each: signal.signal(each, hold) for each in ENDING}
        try:
            return connect(*arguments, **options)
        finally:
            for each, handler in usual.items():  # also in place of what Ray's C code has set
                signal.signal(each, handler)
            if held:
                signal.raise_signal(held[0])

    return run


def leave(give_back: Callable[[], None]) -> threading.Thread:
    """Call ``give_back``, which releases what the study holds, then leave the cluster, or shut down
    one that was started here. Both happen in the returned thread: they take a second or two, in
    which nothing else needs the cluster."""

    def work() -> None:
        give_back()
        _shutdown()

    thread = threading.Thread(target=work, name="leave")
    thread.start()
    return thread


def drop(drop_running: Callable[[], None]) -> None:
    """Leave the cluster at once, with all that runs there, which ``drop_running`` lets go: the
    study stops before its end. To be done while the hosts' processes live, or Ray tells the user of
    each that it died."""
    drop_running()
    _shutdown()


def nodes() -> list[Mapping[str, float]]:
    """Resources of each living node: ``CPU``, ``GPU`` and ``memory`` (bytes)."""
    return [node["Resources"] for node in _living()]


def hardware(precision: str, say: Callable[[str], None]) -> Hardware:
    """Hardware of the nodes that have GPUs by Ray's count or, where none has, of those that have
    processors. The driver's machine may have neither. If there is no such node yet, ``say`` so to
    the user, and wait until one with a GPU joins."""

    def ask() -> Hardware:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides devices from tasks without any
        return Hardware.here(precision)

    # The task needs no resources, so it waits for no other user's trials; its process ends with it.
    task: Any = ray.remote(num_gpus=0, num_cpus=0, max_calls=1)(ask)
    living = _living()
    with_devices = [node for node in living if node["Resources"].get("GPU", 0) >= 1]
    asked = with_devices or [node for node in living if node["Resources"].get("CPU", 0) >= 1]
    answers = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in asked
    ]
    if not answers:
        say("the cluster has no worker yet: waiting until one with a GPU joins")
        answers = [task.options(num_gpus=1).remote()]
    return Hardware.joint(ray.get(answers))


def fits(partition: ClusterPartition) -> int:
    """Number of hosts for which the nodes that are alive have room, if nobody else uses them."""
    kind, each = ("GPU", partition.gpus) if partition.gpus else ("CPU", partition.cpus)
    return sum(int(node["Resources"].get(kind, 0) // each) for node in _living())


def _shutdown() -> None:
    """Shut Ray down in this process. No garbage is collected meanwhile, in any thread: Ray ends the
    whole process, with exit code 1, if an object of its own (Tune leaves many in circles) is
    released while it shuts down. It would wait without end for a raylet that was stopped: if that
    was started here, it is ended after a while."""
    lost_cluster.stop_watching()
    patience = threading.Timer(SHUTDOWN_SECONDS, lambda: [end() for end in _started])
    patience.daemon = True
    patience.start()
    gc.collect()
    gc.disable()
    try:
        with _same_handler():
            ray.shutdown()
    finally:
        patience.cancel()
        gc.enable()
        _opened.close()
        _started.clear()


@contextmanager
def _same_handler() -> Iterator[None]:
    """Let this process's handler of SIGTERM outlive the block. Ray sets the system's own in its
    place when it shuts down, by which the process would end without a word. Python, which is not
    told, sets handlers in the main thread alone, so this calls the functions below Python's."""
    get, put = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    get.argtypes, get.restype = [ctypes.c_int], ctypes.c_void_p
    put.argtypes, put.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    handler = get(signal.SIGTERM)
    try:
        yield
    finally:
        put(signal.SIGTERM, handler)


def _at_exit() -> None:
    """Shut Ray down if the process ends before the study left its cluster."""
    if ray.is_initialized():
        _shutdown()


def _living() -> list[dict[str, Any]]:
    """Ray's description of each node that is alive."""
    told: list[dict[str, Any]] = ray.nodes()
    return [node for node in told if node["Alive"]]


def wait_for(method: Any, *, seconds: float = math.inf) -> None:
    """Wait until an actor whose node may be lost answers. Ray restarts it once the node is given up
    and another has room; calls made before that fail at once.

    Ray could retry by itself (``max_task_retries``), but it would print to the user's terminal each
    time.

    Args:
        method: a method of the actor that takes no arguments.
        seconds: longest time to wait.

    Raises:
        RayActorError: the actor is gone for good.
    """
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            ray.get(method.remote())
            return
        except ActorUnavailableError:
            time.sleep(AGAIN_SECONDS)
