"""Nodes of a real Ray cluster that are taken away, with and without a warning, under trials whose
losses follow from a formula."""

import asyncio
import multiprocessing
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from study.execution import ray_tune
from study.execution.cluster import connect
from study.planning.cluster_partition import ClusterPartition
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.trials.record import Outcome
from study.worker.orders import AdvanceTrial, TrialReport
from tests.study.made_up import MadeUpHost, advanced, hosts_alone, rules
from tests.study.ray_nodes import ray_cluster
from tests.study.stack import REPOSITORY

pytestmark = pytest.mark.slow
TRIALS = 4


class Held(MadeUpHost):
    """A host on which no trial gets beyond its first rung while there is a file ``hold``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def advance(self, order: AdvanceTrial) -> TrialReport:
        heard = order.reported_examples
        with (self.folder / "visits").open("a") as visits:
            print(order.spec.id, heard, os.environ["HOME"], file=visits)
        while heard and (self.folder / "hold").exists():
            await asyncio.sleep(0.1)
        return advanced(order.spec, heard)


def drive(address: str, folder: Path) -> None:
    """A study, in a process of its own: Ray reads the token once in the life of one."""
    with (folder / "shown").open("wb") as shown:
        for output in (1, 2):
            os.dup2(shown.fileno(), output)
    connect(address)
    scheduler = StudyScheduler(rules(trials=TRIALS), StudyJournal(folder), [])
    partition = ClusterPartition(
        hosts=2, cpus=1, gpus=0, trials_per_host=1, concurrency=2, shared=True
    )
    dispatcher = hosts_alone(Held, folder, partition)
    dispatcher.start()
    ray_tune.run(scheduler, dispatcher)
    ray.shutdown()


def visits(folder: Path) -> list[tuple[str, int, str]]:
    """Trial, examples heard of, node, of each time that a host was asked, in order."""
    if not (folder / "visits").exists():
        return []
    lines = [line.split() for line in (folder / "visits").read_text().splitlines()]
    return [(trial, int(heard), Path(home).name) for trial, heard, home in lines]


def held(folder: Path) -> set[str]:
    """Nodes on which trials wait for their second rung, or did."""
    return {node for _, heard, node in visits(folder) if heard}


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_trials_go_on_whatever_nodes_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is told to go, as a spot node is, and drains; the other is lost; a new one comes."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    drain = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "3"}
    (tmp_path / "hold").touch()
    with ray_cluster(tmp_path / "nodes", drain) as cluster:
        arguments = (cluster.address, tmp_path)
        driver = multiprocessing.get_context("spawn").Process(target=drive, args=arguments)
        cluster.start("a", "b")
        driver.start()
        try:
            wait_until(lambda: held(tmp_path) == {"a", "b"})
            cluster.nodes["a"].terminate()
            wait_until(lambda: cluster.nodes["a"].poll() is not None)
            assert "Draining" in (cluster.folder / "a.log").read_text()
            cluster.kill("b")
            cluster.start("c")
            wait_until(lambda: "c" in held(tmp_path))
            (tmp_path / "hold").unlink()
            driver.join(timeout=300)
        finally:
            driver.kill()
    assert driver.exitcode == 0
    records = StudyJournal(tmp_path).records.values()
    assert len(records) == TRIALS + 1 + 4
    assert {record.outcome for record in records} <= {Outcome.COMPLETE, Outcome.PRUNED}
    heard = dict[str, int]()
    for trial, examples, _ in visits(tmp_path):
        assert examples >= heard.get(trial, 0), "it began again instead of going on"
        heard[trial] = examples
    assert "retries remaining" not in (tmp_path / "shown").read_text()
