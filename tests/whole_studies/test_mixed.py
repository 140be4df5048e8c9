"""Trials that need one device and trials that need two, in one study on a real Ray with two."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import ray

from search_spaces.declare import Arm, Budget, LogUniform, Space, method
from study.execution import ray_tune
from study.execution.cluster import connect
from study.execution.dispatcher import PATIENCE, Assignment, Dispatcher
from study.execution.gang_pool import GangPool
from study.execution.host_pool import HostPool
from study.planning.arm_placements import ArmPlacements
from study.planning.cluster_partition import ClusterPartition
from study.planning.placement import uniform_placement
from study.search.journal import StudyJournal
from study.search.scheduler import SearchRules, StudyScheduler
from study.trials.callback import StudyCallback
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import TrialSpec
from study.worker.host_actor import HostActor
from tests.study import small

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed]
SMALL, LARGE = "layernorm", "lora"
SIZES = {SMALL: 1, LARGE: 2}
SPACE = Space(
    question="?",
    arms={name: Arm(everywhere=method(name), lr=LogUniform(1e-3, 1e-2)) for name in SIZES},
    budget=Budget(trials=4, max_examples=24, rungs=1, batch_size=small.BATCH),
)


class Noting(Dispatcher):
    """Notes who was drawn and who began, in order, and each time that it left a device idle."""

    def __init__(self, hosts: HostPool, gangs: GangPool, placements: ArmPlacements) -> None:
        super().__init__(hosts, gangs, placements)
        self.drawn = list[TrialSpec]()
        self.begun = list[TrialSpec]()
        self.running = dict[str, int]()
        self.idle = list[str]()

    def next(self, draw: Callable[[], TrialSpec | None]) -> Assignment | None:
        nothing_left = False

        def noted() -> TrialSpec | None:
            nonlocal nothing_left
            spec = draw()
            nothing_left = spec is None
            self.drawn += [spec] if spec else []
            return spec

        start = super().next(noted)
        if start is not None:
            self.begun.append(start.spec)
            self.running[start.spec.id] = start.placement.devices
            assert sum(self.running.values()) <= self.devices
        elif sum(self.running.values()) < self.devices and not nothing_left:
            began = {spec.id for spec in self.begun}
            self.idle.append(",".join(spec.arm for spec in self.drawn if spec.id not in began))
        return start

    def left(self, trial_id: str) -> None:
        super().left(trial_id)
        del self.running[trial_id]


class Killer(StudyCallback):
    """Kills a worker of the gang as soon as its first trial has reached a rung."""

    def __init__(self) -> None:
        self.victim: str | None = None

    def reported(self, record: TrialRecord) -> None:
        if record.spec.arm == LARGE and self.victim is None:
            self.victim = record.spec.id
            os.kill(workers()[0], signal.SIGKILL)


def workers() -> list[int]:
    """Ray Train's worker processes of this session."""
    mine = psutil.Process().children(recursive=True)
    return [process.pid for process in mine if "RayTrainWorker" in " ".join(process.cmdline())]


def test_none_starves_none_is_lost_and_none_runs_twice(tmp_path: Path) -> None:
    config = small.config(tmp_path)
    study = config.study_folder.path
    study.mkdir()
    placements = {
        name: uniform_placement(
            devices=size,
            deepspeed="2" if size > 1 else "off",
            batch_size=small.BATCH,
            sharing=1,
            reason="",
        )
        for name, size in SIZES.items()
    }
    two = ClusterPartition(
        hosts=2, cpus=1, gpus=0, trials_per_host=1, concurrency=2, shared=False, predicting=True
    )
    killer = Killer()
    rules = SearchRules(
        space=SPACE,
        budget=SPACE.budget,
        slots=("vision", "connector", "decoder"),
        seed=0,
        confirm_seeds=1,
        base="made up",
    )
    scheduler = StudyScheduler(rules, StudyJournal(study), [killer])
    connect(None)
    try:
        gangs = GangPool(config, two)
        hosts = HostPool(HostActor, config, two)
        dispatcher = Noting(hosts, gangs, ArmPlacements(placements, placements[SMALL]))
        dispatcher.start()
        ray_tune.run(scheduler, dispatcher)
        assert not gangs.handles and not hosts.handles, "devices are given back"
    finally:
        ray.shutdown()
    passed = [spec.arm for spec in dispatcher.begun] != [spec.arm for spec in dispatcher.drawn]
    assert passed, "no small trial began while a large one waited for the second device"
    for place, spec in enumerate(dispatcher.begun):
        older = dispatcher.drawn.index(spec)
        younger = [
            other for other in dispatcher.begun[:place] if dispatcher.drawn.index(other) > older
        ]
        assert len(younger) <= PATIENCE, "it was passed by too many"
    assert not [arms for arms in dispatcher.idle if SMALL in arms], "a device was idle"

    records = scheduler.journal.records
    assert killer.victim is not None
    assert len(records) == len(dispatcher.begun) == SPACE.budget.trials + 1 + len(SIZES)
    for record in records.values():
        assert record.outcome in (Outcome.COMPLETE, Outcome.PRUNED), record.error
        seen = [rung.examples_seen for rung in record.rungs]
        assert seen == sorted(set(seen)), "it began again instead of going on"
        if record.rungs:
            expected = small.losses(small.alone(config, record.spec))[: len(seen)]
            found = [rung.validation_loss for rung in record.rungs]
            assert found == pytest.approx(expected, rel=1e-4)
