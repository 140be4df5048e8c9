"""Hosts on real Ray, with Tune, and trials whose losses follow from a formula."""

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray
from ray.tune.experiment import Trial

from study.execution import cluster, ray_tune
from study.planning.cluster_partition import ClusterPartition
from study.search.scheduler import StudyScheduler
from study.trials.callback import StudyCallback
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind
from study.worker.hardware import Hardware
from study.worker.orders import AdvanceTrial, TrialReport
from tests.study.made_up import MadeUpHost, advanced, hosts_alone, rules
from trainables.errors import BadInput

pytestmark = pytest.mark.long
PROCESSORS = 2
"""Whatever the machine has."""


class MadeUp(MadeUpHost):
    """A host that dies once: at the first second rung of a trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def advance(self, order: AdvanceTrial) -> TrialReport:
        with (self.folder / "visits").open("a") as visits:
            print(order.spec.id, os.getpid(), order.suspect, file=visits)
        if order.reported_examples:
            with suppress(FileExistsError):
                (self.folder / "died").touch(exist_ok=False)
                os._exit(1)
        return advanced(order.spec, order.reported_examples)


class Killed(MadeUp):
    """A host that every trial of one arm kills."""

    async def advance(self, order: AdvanceTrial) -> TrialReport:
        if order.spec.arm == "layernorm" and order.spec.kind is Kind.SEARCH:
            os._exit(1)
        return await super().advance(order)


class Unstartable(MadeUp):
    """A host that finds no way to start."""

    def __init__(self, folder: Path) -> None:
        raise RuntimeError("there is no such model here")


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    ray.init(address="local", num_cpus=PROCESSORS, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_the_nodes_say_how_they_compute_whoever_holds_them() -> None:
    here = Hardware.here("auto")

    @ray.remote(num_cpus=PROCESSORS)
    class Holder:
        def there(self) -> None:
            """It holds all."""

    holder = Holder.remote()
    ray.get(holder.there.remote())
    said: list[str] = []
    assert cluster.hardware("auto", said.append) == here
    assert cluster.hardware("bf16", said.append).precision == "bf16"
    assert not said, "it has workers"
    ray.kill(holder)


PARTITION = ClusterPartition(
    hosts=PROCESSORS, cpus=1, gpus=0, trials_per_host=1, concurrency=2, shared=False
)


def play(
    begin: Callable[..., StudyScheduler], folder: Path, actor: type = MadeUp, trials: int = 6
) -> StudyScheduler:
    scheduler = begin(given=rules(trials=trials))
    dispatcher = hosts_alone(actor, folder, PARTITION)
    dispatcher.start()
    try:
        ray_tune.run(scheduler, dispatcher)
    finally:
        dispatcher.give_back(all_idle=True)
    return scheduler


def test_a_trial_whose_host_died_goes_on_on_another(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    scheduler = play(begin, tmp_path)
    assert (tmp_path / "died").exists()
    records = scheduler.journal.records.values()
    assert {record.outcome for record in records} <= {Outcome.COMPLETE, Outcome.PRUNED}
    assert len(records) == 6 + 1 + 4
    visits = [line.split() for line in (tmp_path / "visits").read_text().splitlines()]
    assert len({process for _, process, _ in visits}) >= 2
    assert sum(suspect == "True" for _, _, suspect in visits) == 1


class HeldTrials(StudyCallback):
    """Counts the trials that Ray Tune, or whatever else, holds when the last one ends."""

    def __init__(self, trials: int) -> None:
        self.left, self.held = trials, 0

    def ended(self, record: TrialRecord) -> None:
        self.left -= 1
        if not self.left:
            gc.collect()
            self.held = sum(type(held) is Trial for held in gc.get_objects())


def test_nothing_of_tune_holds_trials_that_have_ended(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    """Two run at a time. Those that ended since another began are there until the next begins."""
    (tmp_path / "died").touch()  # so that no host dies
    watch = HeldTrials(8 + 1 + 4)
    play(partial(begin, watch), tmp_path, trials=8)
    assert watch.left == 0 and 1 <= watch.held <= 4


@pytest.mark.slow
def test_a_trial_that_kills_every_host_fails_and_the_others_go_on(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    scheduler = play(begin, tmp_path, Killed, trials=2)
    records = [r for r in scheduler.journal.records.values() if r.spec.kind is Kind.SEARCH]
    outcomes = {record.spec.arm: record.outcome for record in records}
    assert outcomes["layernorm"] is Outcome.FAILED
    assert set(outcomes.values()) <= {Outcome.FAILED, Outcome.COMPLETE, Outcome.PRUNED}
    assert len(set(outcomes.values())) > 1 and scheduler.done
    (failed,) = [record for record in records if record.spec.arm == "layernorm"]
    assert failed.error.startswith(f"its host died {ray_tune.RETRIES + 1} times: ")


@pytest.mark.slow
def test_a_study_whose_hosts_cannot_start_ends_and_says_why(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"no host could be started: .*there is no such model here"):
        play(begin, tmp_path, Unstartable)


def free() -> float:
    """Processors that nobody holds."""
    found: dict[str, float] = ray.available_resources()
    return found.get("CPU", 0.0)


def test_idle_hosts_give_their_devices_back(tmp_path: Path) -> None:
    until(lambda: free() == PROCESSORS)
    hosts = hosts_alone(MadeUp, tmp_path, replace(PARTITION, shared=True)).hosts
    hosts.start()
    names = [hosts.place("one", 1.0), hosts.place("other", 1.0)]
    assert len(set(names)) == 2
    until(lambda: free() == 0)
    hosts.left("one")
    hosts.give_back(all_idle=False)
    assert len(hosts.handles) == 2  # it was idle for less than half a minute
    hosts.give_back(all_idle=True)
    assert list(hosts.handles) == [names[1]]
    until(lambda: free() == 1)
    hosts.left("other")
    hosts.give_back(all_idle=True)
    until(lambda: free() == PROCESSORS)


class Slow(MadeUp):
    """A host that takes its time to load."""

    async def alive(self) -> None:
        while not (self.folder / "loaded").exists():
            await asyncio.sleep(0.05)


def test_hosts_make_way_only_as_long_as_there_are_more_than_nodes_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.execution.host_pool.WANTED_SECONDS", 0.0)
    until(lambda: free() == PROCESSORS)
    hosts = hosts_alone(Slow, tmp_path, PARTITION).hosts
    hosts.start()
    first, second = hosts.place("one", 1.0), hosts.place("two", 1.0)
    wanted = hosts.place("three", 1.0)  # for which no node has room
    hosts.give_back(all_idle=False)
    assert set(hosts.handles) == {first, second, wanted}, "one that has a trial was ended"
    hosts.left("one")
    hosts.left("two")
    for _ in range(20):  # a second, in which one of the two makes way, and the third loads
        time.sleep(0.05)
        hosts.give_back(all_idle=False)
    assert len(hosts.handles) == PROCESSORS and wanted in hosts.handles
    (tmp_path / "loaded").touch()
    ray.get(hosts.handles[wanted].alive.remote(), timeout=60)
    hosts.left("three")
    hosts.give_back(all_idle=True)
    until(lambda: free() == PROCESSORS)


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)
