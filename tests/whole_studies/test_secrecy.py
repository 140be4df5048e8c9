"""Planted secrets are nowhere afterwards: not in what a study writes or prints, not in the command
lines of its processes, and not in what Ray and MLflow keep."""

import base64
import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.study.stack import Process, free_port, kill, start, wait_for
from tests.trainables.data.small import jsonl

pytestmark = pytest.mark.slow
NAMES = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "HF_TOKEN"),
    *("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD", "WANDB_API_KEY"),
    *("GITHUB_TOKEN", "AZURE_STORAGE_CONNECTION_STRING", "RAY_AUTH_TOKEN"),
)
"""Of the environment. Who reads MLFLOW_TRACKING_PASSWORD has no MLFLOW_TRACKING_USERNAME: the
address names both."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Secrets, and a server that lets nobody in without one of them."""

    folder: Path
    uri: str
    """Of the server, with the password."""
    password: str
    environment: Mapping[str, str]

    @property
    def forms(self) -> dict[str, bytes]:
        """Each secret as it may stand somewhere."""
        word = base64.b64encode(f"study:{self.password}".encode()).decode()
        found = {name: self.environment[name] for name in NAMES}
        found |= {"password": self.password, "in the address": quote(self.password, safe="")}
        return {name: text.encode() for name, text in {**found, "as a header": word}.items()}

    def seen_in(self, content: bytes) -> list[str]:
        """Names of the secrets that stand there."""
        return [name for name, form in self.forms.items() if form in content]

    def files(self) -> list[str]:
        """The files that have one, with its name."""
        return [
            f"{path}: {name}"
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.is_symlink()
            for name in self.seen_in(path.read_bytes())
        ]

    def call(self, module: str, *arguments: str, code: int = 0) -> str:
        """What a command prints, whatever it is: without secrets."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        said = done.stdout.decode()
        assert done.returncode == code, said
        assert self.seen_in(done.stdout) == [], said
        return said


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A study that has come to its end."""

    printed: str
    seen: Mapping[int, tuple[str, list[str]]]
    """Process -> its command line, where secrets stood in it, and which."""
    rounds: int
    """How often the command lines were looked at."""


class Watch:
    """Reads the command lines of all processes, again and again. The driver's counts as it is at
    the end: until Python has started, nobody can hide what it was given. Ray's files get a second
    name each, by which they stay, with what is written later, when Ray's folder is removed."""

    def __init__(self, planted: Planted, driver: Process) -> None:
        self.planted, self.driver = planted, driver
        self.seen: dict[int, tuple[str, list[str]]] = {}
        """See ``Ran``."""
        self.rounds = 0
        self.kept = planted.folder / "kept"
        self.kept.mkdir()

    def run(self) -> None:
        while self.driver.poll() is None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                process = int(path.parent.name)
                if found := self.planted.seen_in(line):
                    self.seen[process] = line.decode(errors="replace"), found
                elif line and process == self.driver.pid:
                    self.seen.pop(process, None)
            self._keep()
            self.rounds += 1
            time.sleep(0.05)

    def _keep(self) -> None:
        """Give a second name to each of Ray's files that has none yet."""
        for place in self.planted.folder.glob("medvlm.ray-*"):
            for folder, _, names in os.walk(place):
                for path in (Path(folder, name) for name in names):
                    with suppress(OSError):  # it has its second name, or is gone
                        state = path.lstat()
                        if stat.S_ISREG(state.st_mode):
                            (self.kept / f"{state.st_ino}-{path.name}").hardlink_to(path)


@pytest.fixture(scope="module")
def planted() -> Iterator[Planted]:
    # Short: Ray keeps sockets in it.
    folder = Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
    password, port = f"pw@{secrets.token_hex(8)}/x", free_port()
    settings = folder.with_name(f"{folder.name}.ini")
    settings.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\n"
        "admin_username = study\nauthorization_function = "
        "mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}"]
    command += ["--workers=1", "--app-name=basic-auth", f"--artifacts-destination={folder}/files"]
    server: Process = start(
        command,
        {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/server.db",
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        folder / "server.log",
    )
    environment = {name: secrets.token_hex(32) for name in NAMES}
    environment |= {"AWS_ACCESS_KEY_ID": "planted", "RAY_AUTH_MODE": "token"}
    environment |= {"RAY_TMPDIR": str(folder), "TMPDIR": str(folder)}
    try:
        wait_for(port, server)
        uri = f"http://study:{quote(password, safe='')}@127.0.0.1:{port}"
        yield Planted(folder=folder, uri=uri, password=password, environment=environment)
    finally:
        kill(server)
        shutil.rmtree(folder, ignore_errors=True)
        settings.unlink()


@pytest.fixture(scope="module")
def ran(planted: Planted) -> Ran:
    """A study has been run."""
    log, data = planted.folder / "printed", planted.folder / "data"
    data.mkdir()
    jsonl.write(data)
    command = [sys.executable, "-m", "study.launch", "--storage", str(planted.folder / "studies")]
    command += ["--space", "smoke", "--trials", "2", "--max-examples", "32", "--seeds", "1"]
    command += ["--data", "jsonl", "--data-root", str(data), "--split", "by_image"]
    command += ["--name", "one", "--tracking-uri", planted.uri]
    watch = Watch(planted, start(command, planted.environment, log))
    watch.run()
    assert watch.driver.returncode == 0, log.read_text()
    return Ran(printed=log.read_text(), seen=watch.seen, rounds=watch.rounds)


def test_no_process_has_a_secret_in_its_command_line(ran: Ran) -> None:
    assert ran.seen == {} and ran.rounds > 50


def test_a_study_prints_no_secret(planted: Planted, ran: Ran) -> None:
    assert planted.seen_in(ran.printed.encode()) == [], ran.printed
    assert "MLflow  http://127.0.0.1:" in ran.printed, "a browser asks for the password"


def test_no_file_has_a_secret(planted: Planted, ran: Ran) -> None:
    """Of the study, MLflow and Ray."""
    assert planted.files() == []
    kept = [path.name.partition("-")[2] for path in (planted.folder / "kept").iterdir()]
    logs = {"raylet.out", "gcs_server.out", "runtime_env_agent.log"}
    assert logs <= set(kept) and len(kept) > 10, f"Ray's files were looked at: {sorted(kept)}"


def test_what_is_made_of_a_study_has_no_secret(planted: Planted, ran: Ran) -> None:
    where = ["one", "--storage", str(planted.folder / "studies")]
    server = ["--tracking-uri", planted.uri]
    out = planted.folder / "out"
    said = planted.call("study.export", *where, *server, "--out", str(out), "--register", "winner")
    assert "registered model: models:/winner/1" in said, "the password has reached the server"
    assert "--tracking-uri 'http://study:***@127.0.0.1" in (out / "README.md").read_text()
    planted.call("study.report", *where)
    said = planted.call("study.ui", *where, *server)
    assert "\nConfirmed  http://127.0.0.1:" in said, "a browser asks for the password"
    assert planted.files() == []


def test_a_wrong_password_is_refused_and_not_shown(planted: Planted) -> None:
    wrong = replace(planted, uri=planted.uri.replace("pw%40", "no%40"), password="no@")
    where = ["--storage", str(planted.folder / "other"), "--tracking-uri", wrong.uri]
    said = planted.call("study.launch", "--space", "smoke", *where, code=2)
    assert "does not let this user in" in said and "no%40" not in said
