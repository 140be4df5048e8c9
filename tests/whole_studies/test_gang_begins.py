"""A gang whose workers do not find each other: its study stops in order and says why."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray

from search_spaces.declare import Arm, Budget, LogUniform, Space, method
from study.execution import gang_pool, ray_tune
from study.execution.cluster import connect, nodes
from study.execution.dispatcher import Dispatcher
from study.execution.gang_pool import GangPool
from study.execution.host_pool import HostPool
from study.planning.arm_placements import ArmPlacements
from study.planning.cluster_partition import divide
from study.planning.placement import uniform_placement
from study.search.journal import StudyJournal
from study.search.scheduler import SearchRules, StudyScheduler
from study.worker.host_actor import HostActor
from tests.study import small
from trainables.errors import BadInput

PATIENCE_SECONDS = 300
SPACE = Space(
    question="?",
    arms={"lora": Arm(everywhere=method("lora"), lr=LogUniform(1e-3, 1e-2))},
    budget=Budget(trials=1, max_examples=small.STOPS[-1], rungs=1, batch_size=small.BATCH),
)


class Watched(GangPool):
    """Not waited for without end."""

    give_up = 0.0

    def give_back(self, *, all_idle: bool) -> None:
        assert time.monotonic() < self.give_up, "the study waits in silence"
        super().give_back(all_idle=all_idle)


class Neighbour:
    """Takes all processors but one."""


def nothing_is_held() -> bool:
    """All processors are free, soon."""
    give_up = time.monotonic() + 20
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        if time.monotonic() > give_up:
            return False
        time.sleep(0.2)
    return True


@pytest.mark.slow
@pytest.mark.by_hand
def test_a_study_stops_if_its_workers_do_not_find_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    monkeypatch.setattr(gang_pool, "ONCE_MORE_SECONDS", 0.0)
    config, said = small.config(tmp_path), list[str]()
    config.study_folder.path.mkdir()
    rules = SearchRules(
        space=SPACE,
        budget=SPACE.budget,
        slots=("vision", "connector", "decoder"),
        seed=0,
        confirm_seeds=1,
        base="made up",
    )
    scheduler = StudyScheduler(rules, StudyJournal(config.study_folder.path))
    connect(None)
    try:
        others = ray.cluster_resources()["CPU"] - 1
        neighbour = ray.remote(Neighbour).options(num_cpus=others).remote()
        ray.wait([neighbour.__ray_ready__.remote()], timeout=60)

        def say(line: str) -> None:
            said.append(line)
            ray.kill(neighbour)  # there is room from now on

        partition = divide(nodes(), 1, shared=False, per_trial=2)
        two = uniform_placement(
            devices=2, deepspeed="2", batch_size=small.BATCH, sharing=1, reason=""
        )
        watched = Watched(config, partition, say)
        watched.give_up = time.monotonic() + PATIENCE_SECONDS
        dispatcher = Dispatcher(
            HostPool(HostActor, config, partition), watched, ArmPlacements({"lora": two}, two)
        )
        with pytest.raises(BadInput) as stopped:
            ray_tune.run(scheduler, dispatcher)
        assert nothing_is_held(), "workers are left that hold their devices"
    finally:
        ray.shutdown()
    why = "Unable to find address for: ib0; set GLOO_SOCKET_IFNAME"
    assert str(stopped.value).startswith("no gang of 2 processors could be started: ")
    assert why in str(stopped.value) and "\n" not in str(stopped.value)
    no_room, failed = said
    assert no_room == "gang-0 waits for 2 processors: the cluster has no room"
    assert failed.startswith("gang-0 could not be started and is started again: ") and why in failed
    (trial,) = scheduler.journal.records.values()
    assert trial.outcome is None, "it is the place that failed, and not the trial"
