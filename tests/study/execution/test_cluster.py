"""Leaving a cluster."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from study.execution import cluster
from study.storage import scratch
from tests.study.command_line import REPOSITORY
from tests.trainables.test_command import takes_signals
from trainables.errors import BadInput


class Held:
    """An object of which only a circle of references is left."""

    def __init__(self) -> None:
        self.circle = self


def test_no_garbage_is_collected_while_ray_shuts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray ends the process if one of its objects is released meanwhile, whichever thread does it.
    Objects in circles are released before, or after."""
    left = weakref.ref(Held())
    seen = []

    def shutdown() -> None:
        late = weakref.ref(Held())
        for _ in range(10**5):  # would begin a collection many times
            _ = [[]]
        seen.append((left() is None, late() is not None, gc.isenabled()))

    monkeypatch.setattr(cluster.ray, "shutdown", shutdown)
    given_back: list[bool] = []
    cluster.leave(lambda: given_back.append(True)).join()
    assert given_back == [True]
    assert seen == [(True, True, False)]
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_shutdown_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shutdown() -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(cluster.ray, "shutdown", shutdown)
    with pytest.raises(RuntimeError, match="no"):
        cluster.drop(lambda: None)
    assert gc.isenabled()


RACE = """
import threading
import ray
from study.execution import cluster

ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
references = [ray.ObjectRef.from_random() for _ in range(300_000)]

def drop():
    while references:
        circle = [references.pop()]
        circle.append(circle)

class SlowToLeave:
    def __init__(self, worker):
        self.worker = worker

    def __getattr__(self, name):
        return getattr(self.worker, name)

    def shutdown_driver(self):
        threading.Thread(target=drop).start()
        self.worker.shutdown_driver()

ray._private.worker.global_worker.core_worker = SlowToLeave(
    ray._private.worker.global_worker.core_worker
)
cluster.leave(lambda: None).join()
print("alive")
"""
"""Leaves a cluster while another thread makes circles that hold Ray's objects. With Ray's own
``shutdown`` the process ended with exit code 1."""


@pytest.mark.slow
def test_a_study_outlives_its_cluster() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RACE], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr


LISTENING = """
import os
from pathlib import Path
from study.execution import cluster

def ours(pid):
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()

def sockets():
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                yield f"socket:[{fields[9]}]", fields[1].partition(":")[0]

cluster.connect(None)
import ray
print(ray.get(ray.remote(num_cpus=1)(lambda: ray.util.get_node_ip_address()).remote()))
opened = set()
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if ours(int(pid)):
            opened |= {os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        pass  # it has ended
print(*{address for socket, address in sockets() if socket in opened})
import psutil
words = {word for p in psutil.Process().children(recursive=True) for word in p.cmdline()}
print(*{Path(word).name for word in words if "ray" in word and word.endswith(".py")})
"""
"""Prints a worker's address, the addresses at which the processes of a local Ray listen, and the
Python files that these run."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="others keep their sockets elsewhere")
def test_a_cluster_of_this_machine_alone_listens_to_nobody_else() -> None:
    """It starts without a home that could be written to, too, as in many containers. And it starts
    no process that it does not need."""
    without_home = {name: value for name, value in os.environ.items() if "RAY_AUTH" not in name}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        env=without_home | {"HOME": "/dev/null"},
        capture_output=True,
        text=True,
        check=True,
    )
    worker, listens, run = done.stdout.split("\n")[:3]
    assert worker == "127.0.0.1"
    assert set(listens.split()) <= {"0100007F", "0000000000000000FFFF00000100007F"} and listens
    assert not {"monitor.py", "log_monitor.py", "dashboard.py"} & {*run.split()}


class BrokenNode:
    """A node of Ray, one of whose processes has ended."""

    def __init__(self, kind: str, returncode: int) -> None:
        self.kind, self.process = kind, SimpleNamespace(returncode=returncode)

    def start_head_processes(self) -> None:
        raise RuntimeError("the start timed out")

    def dead_processes(self) -> list[tuple[str, SimpleNamespace]]:
        return [(self.kind, self.process)]


@pytest.mark.parametrize(
    ("kind", "returncode", "said"),
    [
        ("raylet", -signal.SIGKILL, "SIGKILL while Ray started, perhaps for want of memory"),
        ("gcs_server", -signal.SIGTERM, "SIGTERM while Ray started"),
        ("raylet", -signal.SIGABRT, ""),  # it gave up
        ("raylet", 1, ""),
    ],
)
def test_of_a_start_of_ray_whose_process_was_killed_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, returncode: int, said: str
) -> None:
    """A start that fails at once is tried once more only if a process of it was killed."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(cluster, "Node", BrokenNode)
    monkeypatch.setattr(
        cluster.ray, "init", lambda **_: cluster.Node(kind, returncode).start_head_processes()
    )
    lines: list[str] = []
    with pytest.raises(BadInput) as raised:
        cluster._start(lines.append)
    if said:
        told = f"Ray's process {kind} was ended by {said}"
        assert lines == [f"{told}; it is started once more"]
        assert str(raised.value) == (
            f"Ray does not start on this machine ({told}): give the same command again"
        )
    else:
        assert lines == []
        assert str(raised.value) == (
            "Ray does not start on this machine (the start timed out); it may be too busy: give "
            "the same command again"
        )


SLOW_AGENTS = """
import os, sys, time

for word in sys.orig_argv:
    if word.endswith("dashboard/agent.py") or word.endswith("runtime_env/agent/main.py"):
        with open(os.environ["STARTS_OF_AGENTS"], "a+") as starts:
            print(word, file=starts)
            starts.seek(0)
            first = starts.read().count(word) <= int(os.environ["SLOW_STARTS"])
        time.sleep(25 if first else 0)
"""
STARTS = """
import ray
from study.execution import cluster
from trainables.errors import BadInput

try:
    cluster.connect(None)
    print("nodes:", len(cluster.nodes()))
except BadInput as error:
    print("error:", error)
"""


@pytest.mark.slow  # Ray itself waits half a minute for each start
@pytest.mark.parametrize("slow_starts", [1, pytest.param(2, marks=pytest.mark.by_hand)])
def test_ray_is_started_once_more_where_its_agents_were_too_slow(
    tmp_path: Path, slow_starts: int
) -> None:
    """As on a busy machine: the raylet gives up when its agents take more than 15 seconds."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_AGENTS)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # for the names of sockets
        done = subprocess.run(
            [sys.executable, "-c", STARTS],
            env=os.environ
            | {
                "PYTHONPATH": f"{tmp_path}:{REPOSITORY}",
                "STARTS_OF_AGENTS": str(tmp_path / "starts"),
                "SLOW_STARTS": str(slow_starts),
                "RAY_TMPDIR": short,
            },
            capture_output=True,
            text=True,
            check=True,
        )
        first, second = done.stdout.splitlines()
        assert first == (
            "Ray did not start in time: this machine may be busy; it is started once more"
        )
        if slow_starts == 1:
            assert second == "nodes: 1"
        else:
            assert second.startswith("error: Ray does not start on this machine (The current node")
            (kept,) = Path(short).glob("ray-logs-*/logs")
            assert second.endswith(f"see {kept}, and give the same command again")
            assert (kept / "raylet.out").is_file()
        assert "Traceback" not in done.stderr
        assert not [*Path(short).glob(f"{scratch.PREFIX}*")]


@pytest.mark.slow  # Ray's agents, if they had begun, wait a minute for it
def test_a_process_that_is_killed_while_ray_starts_leaves_no_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # for the names of sockets
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        with subprocess.Popen(
            [sys.executable, "-c", STARTS], stdout=subprocess.PIPE, cwd=REPOSITORY
        ) as starting:
            while not [*Path(short).glob("*/session_2*/sockets/*")]:
                assert starting.poll() is None
                time.sleep(0.01)
            starting.kill()
        (left,) = Path(short).iterdir()
        ours = [p for p in psutil.process_iter(["cmdline"]) if str(left) in str(p.info)]
        assert psutil.wait_procs(ours, timeout=150)[1] == []
        long_ago = left.stat().st_mtime - 2 * scratch.YOUNG_SECONDS
        os.utime(left, (long_ago, long_ago))
        with scratch.folder("next"):
            assert not left.exists()


INTERRUPTED = """
import time
from study.execution import cluster
from trainables.command import command

@command
def main(arguments=None):
    cluster.connect(None)
    time.sleep(60)

raise SystemExit(main([]))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("begun", "sent"),
    [
        ("sockets/*", signal.SIGTERM),
        ("sockets/*", signal.SIGHUP),
        ("logs/python-core-driver*", signal.SIGTERM),
        ("logs/python-core-driver*", signal.SIGINT),
    ],
)
def test_a_signal_while_ray_starts_interrupts_in_order(
    begun: str, sent: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its processes start, and while its C code connects: that prints where a SIGTERM came,
    and would end the process by a segmentation fault or an alarm."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # for the names of sockets
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        with subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED],
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            preexec_fn=takes_signals,  # noqa: PLW1509  # sets signals only
        ) as starting:
            while not [*Path(short).glob(f"*/session_2*/{begun}")]:
                assert starting.poll() is None
                time.sleep(0.01)
            (place,) = Path(short).glob(f"{scratch.PREFIX}*")
            starting.send_signal(sent)
            _, said = starting.communicate(timeout=120)
        assert starting.returncode == 128 + sent, said
        if sent == signal.SIGHUP:
            assert said == "", "nobody would read it"
        else:
            assert said.endswith("interrupted\n")
        assert "Traceback" not in said
        assert not place.exists()
        ours = [p for p in psutil.process_iter(["cmdline"]) if str(place) in str(p.info)]
        assert psutil.wait_procs(ours, timeout=60)[1] == []


STOPPED = """
import os, signal, psutil
from study.execution import cluster
cluster.SHUTDOWN_SECONDS = 1.0
cluster.connect(None)
(raylet,) = [p for p in psutil.Process().children(recursive=True) if p.name() == "raylet"]
raylet.suspend()
cluster.leave(lambda: None).join()
print("left", raylet.is_running())
"""


@pytest.mark.long
def test_a_raylet_that_was_stopped_is_not_waited_for_without_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        timeout=180,
    )
    assert done.stdout == "left False\n"
    assert "Traceback" not in done.stderr


def test_a_start_of_ray_that_fails_at_once_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "no number")
    with pytest.raises(BadInput, match="Ray does not start on this machine \\(invalid literal"):
        cluster.connect(None, said.append)
    assert said == []


SHUT_DOWN = """
import os, signal, time
import ray
from study.execution import cluster

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
signal.signal(signal.SIGTERM, lambda number, frame: print("in order", flush=True))
cluster.leave(lambda: None).join()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.1)
"""


@pytest.mark.long
def test_a_study_that_has_left_its_cluster_is_still_interrupted_in_order() -> None:
    """Ray lets the system end the process at SIGTERM from its shutdown on, as while a report is
    written."""
    done = subprocess.run(
        [sys.executable, "-c", SHUT_DOWN],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=REPOSITORY,
    )
    assert (done.returncode, done.stdout) == (0, "in order\n"), done.stderr
