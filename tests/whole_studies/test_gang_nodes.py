"""A gang over two nodes of a real Ray cluster that share no folder, of which one is lost."""

from __future__ import annotations

import multiprocessing
import secrets
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from study.execution.cluster import connect, nodes, wait_for
from study.execution.gang_pool import GangPool
from study.planning.cluster_partition import divide
from study.planning.placement import uniform_placement
from study.storage.object_store import ObjectStore
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, TrialReport
from tests.study import small
from tests.study.object_store import serve
from tests.study.ray_nodes import ray_cluster
from tests.study.stack import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.by_hand, pytest.mark.deepspeed]
TRIAL = small.spec()
STORAGE = "s3://studies/all"


def drive(address: str, config: HostConfig, test: Connection) -> None:
    """Tell each report of the trial, or that its gang died, and wait to go on; in a process of its
    own: Ray reads the token once in the life of one."""
    connect(address)
    gangs = GangPool(config, divide(nodes(), 1, shared=True, per_trial=2))
    zero = uniform_placement(devices=2, deepspeed="2", batch_size=small.BATCH, sharing=1, reason="")
    gang = gangs.handles[gangs.place(TRIAL.id, 2)]
    order, report = AdvanceTrial(spec=TRIAL, placement=zero), TrialReport()
    while not report.done:
        try:
            report = ray.get(gang.inbox.advance.remote(order))
            order = order.after(report)
        except RayError:
            assert gangs.lost(gang) == gang.name
            test.send(None)
            wait_for(gang.inbox.alive)
        else:
            test.send(report)
            test.recv()
    gangs.left(gang)
    gangs.give_back(all_idle=True)
    ray.shutdown()


def test_what_each_node_has_of_a_checkpoint_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small.config(tmp_path)
    with serve("studies") as store:
        common = {
            **store,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "PYTHONPATH": str(REPOSITORY),
        }
        for name, value in common.items():
            monkeypatch.setenv(name, value)
        with ray_cluster(tmp_path / "nodes", common) as cluster:
            cluster.start("a", "b")
            in_store = replace(config, study_folder=StudyFolder(storage=STORAGE, name="one"))
            here, there = multiprocessing.Pipe()
            driver = multiprocessing.get_context("spawn").Process(
                target=drive, args=(cluster.address, in_store, there)
            )
            driver.start()
            there.close()
            try:
                reports = [told(here)]
                kept = ObjectStore(f"{STORAGE}/one/checkpoints/{TRIAL.id}").listing()
                cluster.kill("b")
                here.send("go on")
                assert told(here) is None, "it did not notice"
                cluster.start("c")
                while not reports[-1].done:
                    reports.append(told(here))
                    here.send("go on")
                driver.join(timeout=60)
            finally:
                driver.kill()
    assert driver.exitcode == 0
    assert len([key for key in kept if "optim_states" in key]) == 2, "of each worker, of each node"
    assert reports[-1].outcome == Outcome.COMPLETE
    assert [report.rung.examples_seen for report in reports] == list(small.STOPS)
    assert small.losses(reports) == pytest.approx(
        small.losses(small.alone(config, TRIAL)), rel=1e-4
    )


def told(driver: Connection) -> Any:
    """What the driver says next."""
    assert driver.poll(timeout=180), "the driver is silent"
    return driver.recv()
