"""What a cluster has beside Ray's nodes (``tests.study.ray_nodes``), for real and without
Kubernetes: PostgreSQL and an MLflow server, processes of their own on this machine."""

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
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
Process = subprocess.Popen[bytes]


GIVEN = set[int]()
"""Ports of this process's programs, some of which may not listen yet."""


def free_port() -> int:
    """Another one each time."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        if port not in GIVEN:
            GIVEN.add(port)
            return port


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
    """As if the machine's power went: the process and all it started, and nothing of them is left
    to write or to start anything."""
    family = set[psutil.Process]()
    try:
        first = psutil.Process(process.pid)
        # Stopped before they are killed: what runs may start more after it was asked for its own.
        while found := {first, *first.children(recursive=True)} - family:
            family |= found
            for member in found:
                send(member, signal.SIGSTOP)
    except psutil.NoSuchProcess:
        pass
    for member in family:
        send(member, signal.SIGKILL)
    process.wait()
    while any(lives(member) for member in family):
        time.sleep(0.01)


def send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def lives(process: psutil.Process) -> bool:
    """Nobody may be there to take note of an orphan's end."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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
        self, folder: Path, database: str, store: Mapping[str, str], *, workers: int, remember: int
    ) -> None:
        folder.mkdir()
        self.folder, self.workers, self.port = folder, workers, free_port()
        self.admin, password = secrets.token_hex(16), secrets.token_hex(16)
        """The administrator's password."""
        settings = folder / "basic_auth.ini"
        settings.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database}\n"
            f"auth_cache_ttl_seconds = {remember}\n"
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
    folder: Path, database: str, store: Mapping[str, str], *, workers: int = 1, remember: int = 60
) -> Iterator[MlflowServer]:
    """Yet to be started; how it will be reached is known. ``remember``: seconds for which it takes
    a password that was right for right."""
    server = MlflowServer(folder, database, store, workers=workers, remember=remember)
    try:
        yield server
    finally:
        server.stop()
