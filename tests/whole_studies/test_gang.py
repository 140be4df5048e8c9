"""Gangs for real: Ray Train workers, a small model, trials that are stopped or fail.

All that one of two processes of torchrun, or of mpirun, is told is in their environment.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.exceptions import RayActorError

from study.execution import gang_pool
from study.execution.cluster import connect, nodes
from study.execution.gang_pool import GangPool
from study.planning.cluster_partition import divide
from study.planning.placement import Placement, uniform_placement
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome
from study.trials.spec import Kind, TrialSpec
from study.worker.gang_worker import PATIENCE_SECONDS
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, TrialReport
from tests.small_disk import disk
from tests.study import small
from tests.study.small import BATCH, alone, losses, spec
from trainables.engine import ranks
from trainables.errors import BadInput

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed]
TWO = uniform_placement(devices=2, deepspeed="2", batch_size=BATCH, sharing=1, reason="")
LACKING, HANGING = spec(seed=100), spec(seed=101)
LAUNCHED = {
    **dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK"), "1"),
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE"), "2"),
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29511",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RUN_ID": "none",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
}
"""By launchers."""


class Narrow(StudyFolder):
    """Where the second of two workers finds no memory for one trial, and waits for another's
    files as if a server were away, once."""

    def fetch_checkpoint(self, trial_id: str) -> Path:
        if trial_id == LACKING.id and not ranks.current().first:
            torch.empty(2**60)
        if trial_id == HANGING.id and not ranks.current().first:
            waits = self.path.parent / "waits"
            if not waits.exists():
                waits.touch()
                time.sleep(10**6)
        return super().fetch_checkpoint(trial_id)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> HostConfig:
    found = small.config(tmp_path_factory.mktemp("gang"))
    return replace(found, study_folder=Narrow.from_path(found.study_folder.path))


@pytest.fixture(scope="module")
def gangs(config: HostConfig) -> Iterator[GangPool]:
    """Two processors, for a gang on both."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in LAUNCHED.items():
            environment.setenv(name, value)
        connect(None)
    found = GangPool(config, divide(nodes(), 1, shared=False, per_trial=2))
    yield found
    found.give_back(all_idle=True)
    ray.shutdown()


def ask(gangs: GangPool, trial: TrialSpec, heard: int = 0, placement: Placement = TWO) -> Any:
    """Begin to wait for a trial's next report."""
    gang = gangs.handles[gangs.place(trial.id, 2)]
    order = AdvanceTrial(spec=trial, placement=placement, reported_examples=heard)
    return gang.inbox.advance.remote(order)


def play(gangs: GangPool, trial: TrialSpec, placement: Placement = TWO) -> list[TrialReport]:
    """All its reports."""
    order, reports = AdvanceTrial(spec=trial, placement=placement), list[TrialReport]()
    while not (reports and reports[-1].done):
        gang = gangs.find(trial.id)
        inbox = gang.inbox if gang else gangs.handles[gangs.place(trial.id, 2)].inbox
        reports.append(ray.get(inbox.advance.remote(order), timeout=180))
        order = order.after(reports[-1])
    gang = gangs.find(trial.id)
    assert gang is not None
    gangs.left(gang)
    return reports


@pytest.mark.parametrize("stage", ["off", "2", "3"])
def test_a_gangs_losses_are_those_of_one_device(
    gangs: GangPool, config: HostConfig, stage: str
) -> None:
    trial = spec(seed=int(stage, 36))
    found = play(gangs, trial, replace(TWO, deepspeed=stage, micro_batch=1))
    expected = alone(config, trial)
    assert losses(found) == pytest.approx(losses(expected), rel=1e-4)
    assert found[-1].outcome == Outcome.COMPLETE
    assert found[-1].scores == pytest.approx(expected[-1].scores, nan_ok=True)
    costs = found[-1].costs
    assert costs["trained_parameters"] == expected[-1].costs["trained_parameters"]
    assert costs["seconds"] > 0 and costs["peak_memory_gib"] > 0


def test_the_untuned_model_answers_on_a_gang_what_it_answers_on_one_device(
    gangs: GangPool, config: HostConfig
) -> None:
    untuned = replace(spec("frozen"), kind=Kind.UNTUNED, stops=())
    (found,) = play(gangs, untuned, replace(TWO, deepspeed="3", evaluation_batch=2))
    (expected,) = alone(config, untuned)
    assert found.outcome == Outcome.COMPLETE, found
    assert found.scores == pytest.approx(expected.scores, nan_ok=True)
    assert "test.overall" in found.scores


def test_twenty_trials_stopped_at_random_leave_nothing_behind(gangs: GangPool) -> None:
    chance = random.Random(0)
    for seed in range(20):
        trial, heard = spec("layernorm", seed=seed), 0
        for _ in range(chance.randrange(3)):
            heard = ray.get(ask_again(gangs, trial, heard), timeout=180).rung.examples_seen
        if chance.random() < 0.7:  # in the middle of the way to its next rung
            ask_again(gangs, trial, heard)
            time.sleep(chance.uniform(0, 0.3))
        gang = gangs.find(trial.id)
        if gang is not None:
            gangs.left(gang)
    (gang,) = gangs.handles.values()
    assert play(gangs, spec("layernorm", seed=99))[-1].outcome == Outcome.COMPLETE
    gangs.end(gang)
    assert nothing_is_held()
    gangs.start(2)


def ask_again(gangs: GangPool, trial: TrialSpec, heard: int) -> Any:
    gang = gangs.find(trial.id)
    if gang is None:
        return ask(gangs, trial, heard)
    order = AdvanceTrial(spec=trial, placement=TWO, reported_examples=heard)
    return gang.inbox.advance.remote(order)


def nothing_is_held() -> bool:
    """All processors are free and no placement group is left, soon."""
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        groups = ray.util.placement_group_table().values()
        free = ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]
        if free and all(group["state"] == "REMOVED" for group in groups):
            return True
        time.sleep(0.2)
    return False


def test_what_a_trial_does_wrong_is_its_outcome(gangs: GangPool) -> None:
    (uneven,) = play(gangs, spec(batch_size=5))
    assert uneven.outcome == Outcome.FAILED and "multiple of 2 workers" in uneven.error
    (diverged,) = play(gangs, spec("full", lr=1e30))[-1:]
    assert diverged.outcome == Outcome.DIVERGED
    (lacking,) = play(gangs, LACKING)
    assert lacking.outcome == Outcome.OUT_OF_MEMORY, lacking.error
    assert play(gangs, spec("layernorm", seed=7))[-1].outcome == Outcome.COMPLETE


def test_a_full_disk_is_no_trials_fault_and_it_goes_on_when_there_is_room(
    gangs: GangPool, config: HostConfig
) -> None:
    trial = spec(seed=4)
    folder = config.study_folder.checkpoints(trial.id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with disk(folder, "64k") as small_disk:
        told = ray.get(ask(gangs, trial), timeout=180)
        assert not told.done
        assert told.fault.startswith("no room is left in ")
        small_disk.resize("20m")
        found = play(gangs, trial)
        assert found[-1].outcome == Outcome.COMPLETE
        assert not list(folder.glob("partial-*"))
    assert losses(found) == pytest.approx(losses(alone(config, trial)), rel=1e-4)


def test_a_worker_that_hangs_in_a_living_process_is_replaced(
    gangs: GangPool, config: HostConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gangs.give_back(all_idle=True)
    monkeypatch.setattr(gang_pool, "COLLECTIVE_SECONDS", PATIENCE_SECONDS + 5)
    said = list[str]()
    monkeypatch.setattr(gangs, "say", said.append)
    reply = ask(gangs, HANGING)
    (gang,) = gangs.handles.values()
    with pytest.raises(RayActorError):
        pytest.fail(f"it has answered: {ray.get(reply, timeout=300)}")
    assert gang.hung == {HANGING.id}
    told = f"a worker of {gang.name} hangs: the others have waited for it for 25 seconds"
    assert said[-1].startswith(told)
    gangs.lost(gang)
    found = play(gangs, HANGING)
    assert found[-1].outcome == Outcome.COMPLETE, found[-1]
    assert losses(found) == pytest.approx(losses(alone(config, HANGING)), rel=1e-4)
    gangs.give_back(all_idle=True)


def test_workers_that_cannot_load_the_base_are_not_begun_without_end(
    gangs: GangPool, config: HostConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.execution.gang_pool.ATTEMPTS", 1)
    gangs.give_back(all_idle=True)
    workload = replace(config.workload, model="/no/such/model")
    others = GangPool(replace(config, workload=workload), gangs.partition)
    others.place("a trial", 2)
    with pytest.raises(BadInput, match=r"no gang of 2 processors .*: BadInput: unknown model '/no"):
        give_up = time.monotonic() + 120
        while time.monotonic() < give_up:
            others.give_back(all_idle=False)
            time.sleep(0.2)
    assert nothing_is_held()
