"""What is fine is said to be, what is not is found, with what to do about it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from study.execution import cluster
from study.health import checks, nodes
from study.health.checks import CheckResult
from study.health.nodes import Node, NodeReport

HEAD = Node(id="1", name="head (10.0.0.1)", cpus=0, gpus=0)
WORKER = Node(id="2", name="worker (10.0.0.2)", cpus=8, gpus=1)


def report() -> NodeReport:
    """This machine's, as a node's that Ray asked."""
    told = nodes._report("studies")
    return NodeReport(**{k: v for k, v in told.items() if k != "seconds"}, asked_at=told["clock"])


def marks(findings: Any) -> list[tuple[str, str]]:
    assert not isinstance(findings, CheckResult)
    return [(f.mark, f.what) for f in findings]


def test_an_object_store_wants_a_server_for_mlflow() -> None:
    found = checks._mlflow("s3://bucket/studies", None)
    assert found.mark == "problem" and "--tracking-uri" in found.advice


def test_a_store_that_cannot_be_written_is_found() -> None:
    found = checks._storage("s3://")
    assert found.mark == "problem" and "AWS_ENDPOINT_URL" in found.advice


def test_a_slow_server_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks._mlflow(str(tmp_path), None).mark == "ok"
    monkeypatch.setattr(checks, "SLOW_SECONDS", 0.0)
    found = checks._mlflow(str(tmp_path), None)
    assert found.mark == "warning" and "database" in found.advice


def test_a_cluster_without_workers_is_told_of() -> None:
    assert checks._room([HEAD, WORKER]).mark == "ok"
    found = checks._room([HEAD])
    assert found.mark == "warning" and "start workers" in found.advice


def test_other_versions_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = report()
    assert marks(checks._versions({HEAD: fine, WORKER: fine})) == [("ok", "versions")]
    other = replace(fine, versions={**fine.versions, "torch": "1.0", "python": "3.9.1"})
    found = list(checks._versions({HEAD: fine, WORKER: other}))
    assert marks(found) == [("problem", "versions")] * 2
    assert any(f.observation.startswith("torch is 1.0 on worker") for f in found)
    # A node with another checkout.
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "nodes.py").write_text("# of yesterday")
    monkeypatch.setattr(nodes, "__file__", str(tmp_path / "study" / "health" / "nodes.py"))
    stale = report()
    monkeypatch.undo()
    (found,) = checks._versions({HEAD: fine, WORKER: stale})
    assert found.mark == "problem" and found.observation.startswith("this project's code is ")


@pytest.mark.parametrize(
    ("seconds", "doubt", "mark"),
    [(0, 0, "ok"), (5, 4, "ok"), (-5, 0, "warning"), (90, 1, "problem")],
)
def test_clocks_that_differ_are_found(seconds: float, doubt: float, mark: str) -> None:
    fine = report()
    off = replace(fine, clock=fine.asked_at + seconds, doubt_seconds=doubt)
    assert marks(checks._clocks({HEAD: fine, WORKER: off})) == [(mark, "clocks")]


def test_a_node_that_lacks_something_is_found() -> None:
    fine = replace(report(), free_gib={"/": 500.0}, devices=["H100, 80 GiB"], kind="cuda")
    assert marks(checks._node(WORKER, fine)) == [("ok", WORKER.name)]
    full = replace(fine, free_gib={"/": 1.0, "/data": 10.0})
    assert [m for m, _ in marks(checks._node(WORKER, full))] == ["ok", "problem", "warning"]
    blind = replace(fine, devices=[])
    assert marks(checks._node(WORKER, blind)) == [("problem", WORKER.name)]
    unused = replace(fine, devices=["H100, 80 GiB"] * 2)
    (found,) = checks._node(WORKER, unused)
    assert found.mark == "warning" and "Ray counts 1 GPU, torch 2" in found.advice
    homeless = replace(fine, home="Read-only file system")
    assert ("warning", f"{WORKER.name} home") in marks(checks._node(WORKER, homeless))
    (silent,) = checks._node(WORKER, "ModuleNotFoundError: No module named 'study'")
    assert silent.mark == "problem" and "same image" in silent.advice


def test_an_accelerator_that_nobody_has_tried_is_told_of() -> None:
    laptop = Node(id="3", name="laptop (10.0.0.3)", cpus=8, gpus=0)
    fine = replace(report(), free_gib={"/": 500.0}, devices=["mps, 21 GiB"], kind="mps")
    room, found = checks._node(laptop, fine)
    assert room.mark == "ok" and found.mark == "warning"
    assert found.what == f"{laptop.name} mps" and "mps, 21 GiB: nobody" in found.observation
    assert "one trial at a time" in found.advice and "STUDY_DEVICE=cpu" in found.advice


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Node]]:
    """This machine, twice, in a Ray cluster whose processes are to meet on a network that is not
    there."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "none0")
    cluster.connect(None)
    try:
        yield nodes.nodes() * 2
    finally:
        ray.shutdown()


@pytest.mark.long
def test_what_nodes_cannot_do_together_is_found(pair: list[Node], tmp_path: Path) -> None:
    (busy,) = checks._adding([*pair, WORKER], "cuda")  # Ray has no such device to give
    assert marks([busy]) == [("warning", "NCCL")]
    assert busy.observation == "not tried: 1 GPU in use"
    (other,) = checks._adding([WORKER], "xpu")
    assert marks([other]) == [("warning", "XCCL")]
    (together,) = checks._adding(pair, "cpu")
    assert marks([together]) == [("warning", "GLOO")], together.observation
    assert "none0" in together.observation and "set GLOO_SOCKET_IFNAME" in together.advice
    assert checks._passing(pair, str(tmp_path)).mark == "ok"
    assert list(tmp_path.iterdir()) == [], "it cleans up"
    (tmp_path / "file").touch()
    apart = checks._passing(pair, str(tmp_path / "file"))
    assert apart.mark == "problem" and "cannot write" in apart.observation
    assert "mount the same folder" in apart.advice
