"""Whole studies on simulated CUDA devices of a real Ray cluster, whose head has none."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from study.storage import journal_reader
from study.storage.study_folder import JOURNAL
from tests.simulated_cuda.environment import environment
from tests.study.command_line import REPOSITORY, command, results
from tests.study.ray_nodes import Cluster, ray_cluster
from trainables.memory.measure import GIB

SMALL = ("--space", "smoke", "--trials", "4", "--max-examples", "64", "--seeds", "1")
LIMIT = 0.11
"""Memory of a small device in GiB: the base model and about two trials."""


@contextmanager
def devices(
    folder: Path, count: int, gib: float = 16, *, scales_to: int = 0
) -> Iterator[tuple[Cluster, dict[str, str]]]:
    """A cluster with a node of ``count`` devices, and the environment of a study on it. With
    ``scales_to`` there is no node yet, and Ray starts up to so many when something waits."""
    variables = environment(devices=count, gib=gib)
    variables["PYTHONPATH"] = os.pathsep.join((str(REPOSITORY), variables["PYTHONPATH"]))
    variables |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    with ray_cluster(folder / "nodes", variables, gpus=count, scales_to=scales_to) as cluster:
        if not scales_to:
            cluster.start("node")
        yield cluster, os.environ | variables


def begin(
    folder: Path, cluster: Cluster, own: dict[str, str], *given: str
) -> subprocess.Popen[str]:
    asked = command(folder, "--address", cluster.address, "--name", "study", *SMALL, *given)
    return subprocess.Popen(
        asked,
        env=own,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_two_devices_one_of_whose_hosts_dies(tmp_path: Path) -> None:
    """Trials share devices as memory prediction says, and go on where a host was lost."""
    with devices(tmp_path, 2) as (cluster, own):
        study = begin(tmp_path, cluster, own)
        reached = tmp_path / "study"
        while not _rungs(reached):
            assert study.poll() is None, study.stdout and study.stdout.read()
            time.sleep(0.2)
        os.kill(_hosts(cluster)[0], signal.SIGKILL)
        said, _ = study.communicate(timeout=500)
    assert study.returncode == 0, said
    shown = " ".join(said.split())
    assert "at a time on cuda, bf16" in shown and "shared, 1 device, which" in shown
    found = results(tmp_path, "study")
    assert {trial["outcome"] for trial in found["trials"]} <= {"complete", "pruned"}
    assert all(arm["test"]["overall"]["mean"] > 0 for arm in found["arms"])
    for arm in found["arms"]:
        assert 0 < arm["costs"]["peak_memory_gib"] < 1, "the device's memory, not the process's"


@pytest.mark.slow
@pytest.mark.by_hand
def test_a_cluster_without_workers_starts_some(tmp_path: Path) -> None:
    """Ray's autoscaler starts a node for whatever waits for a device, up to two."""
    with devices(tmp_path, 1, scales_to=2) as (cluster, own):
        study = begin(tmp_path, cluster, own, "--concurrency", "2")
        most = 0
        while study.poll() is None:
            most = max(most, len(_hosts(cluster, "head")))
            time.sleep(0.2)
        said, _ = study.communicate()
    assert study.returncode == 0, said
    assert "the cluster has no worker yet: waiting until one with a GPU joins" in said
    assert most == 2, "each node has its host"
    found = results(tmp_path, "study")
    assert {trial["outcome"] for trial in found["trials"]} <= {"complete", "pruned"}
    assert all(arm["test"]["overall"]["mean"] > 0 for arm in found["arms"])


def _rungs(study: Path) -> int:
    """Reports so far. ``StudyJournal`` is a driver's: it ends what another driver has drawn."""
    journal = study / JOURNAL
    content = journal.read_bytes() if journal.exists() else b""
    return sum(len(record.rungs) for record in journal_reader.read(content, str(journal)).records)


def _hosts(cluster: Cluster, node: str = "node") -> list[int]:
    """Processes of hosts on a node, or on those that the head has started."""
    found = []
    for process in psutil.Process(cluster.nodes[node].pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "HostActor" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


@pytest.mark.slow
@pytest.mark.by_hand
def test_what_does_not_fit_beside_others_is_tried_again_with_less(tmp_path: Path) -> None:
    """The user says that the device has more memory than it has."""
    with devices(tmp_path, 1, LIMIT) as (cluster, own):
        study = begin(tmp_path, cluster, own, "--device-gib", "16")
        said, _ = study.communicate(timeout=500)
    assert study.returncode == 0, said
    found = results(tmp_path, "study")
    assert {trial["outcome"] for trial in found["trials"]} <= {"complete", "pruned"}, said
    for arm in found["arms"]:
        assert arm["costs"]["peak_memory_gib"] * GIB <= LIMIT * GIB


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.deepspeed
def test_deepspeed_on_two_devices_for_each_trial(tmp_path: Path) -> None:
    """Ray Train says NCCL, DeepSpeed takes its accelerator ``cuda``, and gloo does the rest."""
    with devices(tmp_path, 2) as (cluster, own):
        study = begin(tmp_path, cluster, own, "--devices-per-trial", "2", "--deepspeed", "2")
        said, _ = study.communicate(timeout=500)
    assert study.returncode == 0, said
    assert "gang, 2 devices, ZeRO-2" in " ".join(said.split())
    outcomes = {trial["outcome"] for trial in results(tmp_path, "study")["trials"]}
    assert outcomes <= {"complete", "pruned"}, said
