"""What a cluster consists of, for real and without Kubernetes: Ray's nodes, PostgreSQL, MLflow, S3.

Each part is a process of its own on this machine; nodes have loopback addresses and homes of their
own, so what one of them keeps in a cache folder no other can see.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
Process = subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(command: list[str], environment: Mapping[str, str], log: Path) -> Process:
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd=REPOSITORY,
    )


def kill(process: Process) -> None:
    """As if the machine's power went: the process and all it started, at once."""
    try:
        first = psutil.Process(process.pid)
        family = [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()


def wait_for(port: int, process: Process) -> None:
    """Until something listens there."""
    give_up = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, f"{process.args!r} has ended: {process.returncode}"
            assert time.monotonic() < give_up, f"nothing listens at {port}"
            time.sleep(0.1)


class Postgres:
    """A server with a database ``mlflow``, reached with a password."""

    def __init__(self, programs: Path, port: int, password: str) -> None:
        self.programs = programs
        self.environment = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "mlflow",
            "PGPASSWORD": password,
            "PATH": f"{programs}:{os.environ['PATH']}",
        }

    def uri(self, database: str) -> str:
        password, port = self.environment["PGPASSWORD"], self.environment["PGPORT"]
        return f"postgresql+psycopg2://mlflow:{password}@127.0.0.1:{port}/{database}"

    def call(self, *command: str, **environment: str) -> str:
        """What a program that speaks to it prints."""
        done = subprocess.run(
            command,
            env=os.environ | self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def postgres(log: Path) -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    programs, port, password = found[-1].parent, free_port(), secrets.token_hex(16)
    # Not in the test's folder, which other users may not enter.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    secret, data = folder / "password", folder / "data"
    secret.write_text(password)
    become: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        for path in (folder, secret):
            shutil.chown(path, "postgres", "postgres")
    make = [*become, str(programs / "initdb"), "-D", str(data), "-U", "mlflow", "--no-sync"]
    subprocess.run(
        [*make, "--auth=scram-sha-256", f"--pwfile={secret}"],
        cwd="/",
        check=True,
        stdout=subprocess.DEVNULL,
    )
    serve = [*become, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-F"]
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    process = start([*serve, *options], {}, log)
    try:
        wait_for(port, process)
        server = Postgres(programs, port, password)
        server.call("createdb", "mlflow")
        yield server
    finally:
        kill(process)
        shutil.rmtree(folder)


class MlflowServer:
    """As infra/mlflow runs it: passwords, records in PostgreSQL, files in an object store."""

    def __init__(
        self, folder: Path, database: str, store: Mapping[str, str], *, workers: int
    ) -> None:
        folder.mkdir()
        self.folder, self.workers, self.port = folder, workers, free_port()
        self.admin, password = secrets.token_hex(16), secrets.token_hex(16)
        """The administrator's password."""
        settings = folder / "basic_auth.ini"
        settings.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database}\n"
            "admin_username = admin\nauthorization_function = "
            "mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        self.environment = {
            **store,
            "PYTHONPATH": str(REPOSITORY / "infra" / "docker"),
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.admin,
            "MLFLOW_STUDY_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_S3_ENDPOINT_URL": store["AWS_ENDPOINT_URL"],
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        self.client = {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}",
            "MLFLOW_TRACKING_USERNAME": "study",
            "MLFLOW_TRACKING_PASSWORD": password,
        }
        """The environment with which studies reach it."""
        self._process: Process | None = None

    def start(self) -> None:
        """Its jobs side by side, as in a cluster: one makes the tables, one waits for them."""
        jobs = {
            verb: start(
                [sys.executable, "-m", "mlflow_schema", verb],
                self.environment,
                self.folder / f"{verb}.log",
            )
            for verb in ("wait", "upgrade")
        }
        for verb, job in jobs.items():
            assert job.wait() == 0, (self.folder / f"{verb}.log").read_text()
        command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1"]
        options = [
            f"--port={self.port}",
            f"--workers={self.workers}",
            "--artifacts-destination=s3://mlflow/artifacts",
            "--app-name=basic-auth",
            f"--allowed-hosts=127.0.0.1:{self.port}",
            "--cors-allowed-origins=https://mlflow.example.org",
        ]
        log = self.folder / "server.log"
        self._process = start([*command, *options], self.environment, log)
        wait_for(self.port, self._process)

    def processor_seconds(self) -> float:
        """That the server has taken, without PostgreSQL's."""
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        times = [member.cpu_times() for member in (first, *first.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    def stop(self) -> None:
        if self._process is not None:
            kill(self._process)


@contextmanager
def mlflow_server(
    folder: Path, database: str, store: Mapping[str, str], *, workers: int = 1
) -> Iterator[MlflowServer]:
    server = MlflowServer(folder, database, store, workers=workers)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Cluster:
    """A head without processors for trials, and nodes that come and go."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.port, self.nodes = free_port(), dict[str, Process]()
        # Short, for it holds sockets.
        self.scratch = Path(f"/tmp/r{secrets.token_hex(3)}")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def home(self, name: str) -> Path:
        return self.folder / name

    def start(self, *names: str) -> None:
        """Nodes of those names, with empty homes; ``head`` is the head."""
        addresses = [f"127.0.0.{len(self.nodes) + 1 + number}" for number in range(len(names))]
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._start, names, addresses))

    def _start(self, name: str, address: str) -> None:
        self.home(name).mkdir(parents=True)
        role = [f"--address={self.address}", "--num-cpus=1"]
        if name == "head":
            role = ["--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false"]
        # With one folder for all, two that start at once would take the same name for a socket.
        scratch = f"--temp-dir={self.scratch / name}"
        command = [*RAY, "start", *role, scratch, f"--node-ip-address={address}", "--block"]
        own = {"HOME": str(self.home(name)), "XDG_CACHE_HOME": "", "GLOO_SOCKET_IFNAME": "lo"}
        log = self.folder / f"{name}.log"
        # On a busy machine a node may not be up in the half minute that Ray gives it.
        for _ in range(3):
            self.nodes[name] = process = start(command, {**self.environment, **own}, log)
            while process.poll() is None:
                if "will now block" in log.read_text():
                    return
                time.sleep(0.1)
        raise AssertionError(log.read_text()[-2000:])

    def kill(self, *names: str) -> None:
        """The nodes are gone, and their disks too."""
        for name in names:
            kill(self.nodes[name])
            shutil.rmtree(self.home(name), ignore_errors=True)

    def stop(self) -> None:
        for process in self.nodes.values():
            kill(process)
        shutil.rmtree(self.scratch, ignore_errors=True)


@contextmanager
def ray_cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[Cluster]:
    folder.mkdir()
    # How often Ray asks a node whether it lives. One that refuses five times in a row is given up
    # (15 seconds by default); one that is slow to answer has ten seconds each time.
    hasty = {"RAY_health_check_period_ms": "200"}
    cluster = Cluster(folder, {**environment, **hasty})
    try:
        cluster.start("head")
        yield cluster
    finally:
        cluster.stop()
