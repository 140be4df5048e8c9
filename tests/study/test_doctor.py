"""``python -m study.doctor``: what it says of this machine, and of what cannot be reached."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from study import doctor
from study.health.checks import CheckResult


@pytest.mark.long
def test_this_machine_is_fit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "study.doctor", "--storage", str(tmp_path / "studies")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "problem" not in done.stdout and "nothing stops a study" in done.stdout
    for what in ("storage", "MLflow", "Ray: 1 node", "versions", "clocks"):
        assert what in done.stdout
    left = {path.name for path in (tmp_path / "studies").iterdir()}
    assert left <= {"mlflow.db", "mlflow-artifacts"}


def test_what_cannot_be_reached_is_a_problem(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "study.doctor", "--storage", str(tmp_path / "file" / "x")]
    options = ["--tracking-uri", f"http://127.0.0.1:{port}", "--address", f"127.0.0.1:{port}"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stderr
    found = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert [line.split()[1] for line in found] == ["storage:", "MLflow:", "Ray:"]
    assert done.stdout.count(" -> ") == 3, "each says what to do"


def test_what_it_shows_has_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted key")
    said = "postgresql://mlflow:planted@db: planted key"
    doctor._show(Console(markup=False), CheckResult(what="MLflow", observation=said))
    assert capsys.readouterr().out == "ok       MLflow: postgresql://mlflow:***@db: ***\n"
