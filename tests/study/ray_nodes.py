"""Nodes of a real Ray cluster, on this machine. Each has a loopback address, a home and processes
of its own, so what one of them keeps in a cache folder no other can see."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from tests.study.stack import REPOSITORY, Process, free_port, kill, start

RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
FAKE_HEAD = "ray.head.default"
"""Type of the head, as Ray's provider of nodes that are processes calls it."""
JOBS = Path(sys.prefix, "cluster")
"""What Ray's head wants beyond the tests' packages to take jobs: infra/docker/cluster.txt, which
``make test`` installs apart."""


class Cluster:
    """A head without processors for trials, and nodes that come and go."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        driver: Mapping[str, str],
        gpus: int,
        scales_to: int,
    ) -> None:
        self.folder, self.environment, self.driver = folder, environment, driver
        self.resources = [f"--num-cpus={gpus or 1}", f"--num-gpus={gpus}"]
        self.scales_to = scales_to
        self.port, self.jobs, self.nodes = free_port(), free_port(), dict[str, Process]()
        # Short, for it holds sockets.
        self.scratch = Path(f"/tmp/r{secrets.token_hex(3)}")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def takes_jobs(self) -> bool:
        return bool(self.driver) and JOBS.is_dir()

    def submit(self, command: list[str], **environment: str) -> tuple[int, str]:
        """Exit code and output of ``ray job submit``, from outside: over HTTP, with a token."""
        address, give_up = f"--address=http://127.0.0.1:{self.jobs}", time.monotonic() + 120
        while True:
            done = subprocess.run(
                [*RAY, "job", "submit", address, "--", *command],
                env=os.environ | self.environment | {"PYTHONPATH": str(JOBS)} | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=400,
                check=False,
            )
            # The head is up some seconds before what takes jobs on it.
            if "No available agent" not in done.stdout or time.monotonic() > give_up:
                return done.returncode, done.stdout

    def home(self, name: str) -> Path:
        return self.folder / name

    def start(self, *names: str) -> None:
        """Nodes of those names, with empty homes; ``head`` is the head."""
        addresses = [f"127.0.0.{len(self.nodes) + 1 + number}" for number in range(len(names))]
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._start, names, addresses))

    def _start(self, name: str, address: str) -> None:
        self.home(name).mkdir(parents=True)
        role = [f"--address={self.address}", *self.resources]
        own = {"HOME": str(self.home(name)), "XDG_CACHE_HOME": "", "GLOO_SOCKET_IFNAME": "lo"}
        if name == "head":
            role = ["--head", f"--port={self.port}", "--num-cpus=0"]
            role += [f"--include-dashboard={self.takes_jobs}", f"--dashboard-port={self.jobs}"]
            own |= self.driver
            if self.scales_to:
                role += ["--num-gpus=0", f"--autoscaling-config={self._autoscaling()}"]
                own |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
            if self.takes_jobs:
                own["PYTHONPATH"] = f"{REPOSITORY}:{JOBS}"
        # With one folder for all, two that start at once would take the same name for a socket.
        scratch = f"--temp-dir={self.scratch / name}"
        command = [*RAY, "start", *role, scratch, f"--node-ip-address={address}", "--block"]
        log = self.folder / f"{name}.log"
        # On a busy machine a node may not be up in the half minute that Ray gives it.
        for _ in range(3):
            self.nodes[name] = process = start(command, {**self.environment, **own}, log)
            while process.poll() is None:
                if "will now block" in log.read_text():
                    return
                time.sleep(0.1)
        raise AssertionError(log.read_text()[-2000:])

    def _autoscaling(self) -> Path:
        """What Ray's autoscaler reads. Its nodes are processes of this machine, children of the
        head's. (``ray.cluster_utils.AutoscalingCluster`` would first end all of Ray's processes on
        this machine, those of others too, and wants a file that Ray's wheel leaves out.)"""
        path = self.folder / "autoscaling.json"
        content = {
            "cluster_name": "scales",
            "max_workers": self.scales_to,
            "provider": {
                "type": "fake_multinode",
                "gcs_address": self.address,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": {
                FAKE_HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "worker": {
                    "resources": {"CPU": 1, "GPU": 1},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": self.scales_to,
                },
            },
            "head_node_type": FAKE_HEAD,
            "idle_timeout_minutes": 1,
            "upscaling_speed": 1.0,
            "auth": {},
            "file_mounts": {},
            "file_mounts_sync_continuously": False,
        }
        lists = ("cluster_synced_files", "initialization_commands", "setup_commands")
        lists += ("rsync_exclude", "rsync_filter")
        for who in ("head", "worker"):
            lists += (f"{who}_setup_commands", f"{who}_start_ray_commands")
        path.write_text(json.dumps(content | {key: [] for key in lists}))
        return path

    def kill(self, *names: str) -> None:
        """The nodes are gone, and their disks too."""
        for name in names:
            kill(self.nodes[name])
            shutil.rmtree(self.home(name))

    def stop(self) -> None:
        for process in self.nodes.values():
            kill(process)
        shutil.rmtree(self.scratch, ignore_errors=True)


@contextmanager
def ray_cluster(
    folder: Path,
    environment: Mapping[str, str],
    driver: Mapping[str, str] = MappingProxyType({}),
    gpus: int = 0,
    scales_to: int = 0,
) -> Iterator[Cluster]:
    """With its head. ``driver`` is what drivers need: the head has it, where they run if they are
    submitted as jobs, and no other node. Each other node has one processor, or ``gpus`` devices
    and as many processors. Up to ``scales_to`` nodes of one device are started by Ray's autoscaler
    when something waits for them."""
    folder.mkdir()
    # How often Ray asks a node whether it lives. One that refuses five times in a row is given up
    # (15 seconds by default); one that is slow to answer has ten seconds each time.
    hasty = {"RAY_health_check_period_ms": "200"}
    cluster = Cluster(folder, {**environment, **hasty}, driver, gpus, scales_to)
    try:
        cluster.start("head")
        yield cluster
    finally:
        cluster.stop()
