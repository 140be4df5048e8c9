"""The doctor: what is fine is said to be, what is not is found, with what to do about it."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from study import doctor, nodes
from study.doctor import Finding
from study.nodes import Node, Report

HEAD = Node(id="1", name="head (10.0.0.1)", cpus=0, gpus=0)
WORKER = Node(id="2", name="worker (10.0.0.2)", cpus=8, gpus=1)


def report() -> Report:
    """This machine's, as a node's that Ray asked."""
    told = nodes._report(False, "studies")
    return Report(**{k: v for k, v in told.items() if k != "seconds"}, asked_at=told["clock"])


def marks(findings: object) -> list[tuple[str, str]]:
    assert not isinstance(findings, Finding)
    return [(f.mark, f.what) for f in findings]  # type: ignore[attr-defined]


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


def test_an_object_store_wants_a_server_for_mlflow() -> None:
    found = doctor._mlflow("s3://bucket/studies", None)
    assert found.mark == "problem" and "--tracking-uri" in found.todo


def test_other_versions_are_found() -> None:
    fine = report()
    assert marks(doctor._versions({HEAD: fine, WORKER: fine})) == [("ok", "versions")]
    other = replace(fine, versions={**fine.versions, "torch": "1.0", "python": "3.9.1"})
    found = list(doctor._versions({HEAD: fine, WORKER: other}))
    assert marks(found) == [("problem", "versions")] * 2
    assert any(f.said.startswith("torch is 1.0 on worker") for f in found)


@pytest.mark.parametrize(
    ("seconds", "doubt", "mark"),
    [(0, 0, "ok"), (5, 4, "ok"), (-5, 0, "warning"), (90, 1, "problem")],
)
def test_clocks_that_differ_are_found(seconds: float, doubt: float, mark: str) -> None:
    fine = report()
    off = replace(fine, clock=fine.asked_at + seconds, doubt_seconds=doubt)
    assert marks(doctor._clocks({HEAD: fine, WORKER: off})) == [(mark, "clocks")]


def test_a_node_that_lacks_something_is_found() -> None:
    fine = replace(report(), free_gib={"/": 500.0}, devices=["H100, 80 GiB"])
    assert marks(doctor._node(WORKER, fine)) == [("ok", WORKER.name)]
    full = replace(fine, free_gib={"/": 1.0, "/data": 10.0})
    assert [m for m, _ in marks(doctor._node(WORKER, full))] == ["ok", "problem", "warning"]
    blind = replace(fine, devices=[])
    assert marks(doctor._node(WORKER, blind)) == [("problem", WORKER.name)]
    homeless = replace(fine, home="Read-only file system")
    assert ("warning", f"{WORKER.name} home") in marks(doctor._node(WORKER, homeless))
    (silent,) = doctor._node(WORKER, "ModuleNotFoundError: No module named 'study'")
    assert silent.mark == "problem" and "same image" in silent.todo


def test_a_folder_that_is_not_shared_is_found(tmp_path: Path) -> None:
    assert nodes._write(str(tmp_path), "t", "a") == ""
    assert nodes._read(str(tmp_path), "t", ["a"]) == []
    assert nodes._read(str(tmp_path / "elsewhere"), "t", ["a"]) == ["a"]
    (tmp_path / "file").touch()
    assert "Not a directory" in nodes._write(str(tmp_path / "file"), "t", "a")
