"""Hosts that are stopped, on real Ray: their trials go on elsewhere. Whole studies in which the
process that trains is stopped are in ``tests.faults``."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from ray.tune.experiment import Trial

from study.execution import ray_tune
from study.execution.ray_tune import RETRIES
from study.planning.cluster_partition import ClusterPartition
from study.search.scheduler import StudyScheduler
from study.trials.record import Outcome
from study.worker.forked_host import LOOKS, Stillness
from study.worker.orders import AdvanceTrial, TrialReport
from tests.study.made_up import MadeUpHost, advanced, hosts_alone, rules
from trainables.devices.environment import STILL
from trainables.errors import BadInput

PARTITION = ClusterPartition(
    hosts=2, cpus=1, gpus=0, trials_per_host=1, concurrency=2, shared=False
)


def test_only_looks_at_which_nothing_was_computed_count() -> None:
    stillness = Stillness()
    assert not any(stillness.look(seconds / 100) for seconds in range(5 * LOOKS))
    assert [stillness.look(2.0) for _ in range(LOOKS + 1)] == [*[False] * LOOKS, True]
    assert not stillness.look(2.01)


def test_hangs_take_no_retries_and_the_fourth_of_a_trial_stops_the_study(
    begin: Callable[..., StudyScheduler],
) -> None:
    scheduler = begin()
    searcher = ray_tune.TuneSearcher(scheduler, hosts_alone(MadeUpHost, None, PARTITION))
    hit, other = (Trial("no trainable", stub=True, max_failures=RETRIES) for _ in range(2))
    for trial in (hit, other):
        searcher.ids[trial.trial_id] = scheduler.next().id
    caretaker = ray_tune.Caretaker(searcher)

    def a_hang() -> None:
        searcher.hung.hit.add(searcher.ids[hit.trial_id])
        caretaker.on_step_begin(0, [hit, other])

    for hangs in (1, 2, 3):
        a_hang()
        assert (hit.max_failures, other.max_failures) == (RETRIES + hangs, RETRIES)
    with pytest.raises(BadInput, match=r"^processes have hung 4 times while trial \w+ was"):
        a_hang()
    assert searcher.stopped


def test_a_signal_whose_interrupt_a_library_caught_ends_the_study(
    begin: Callable[..., StudyScheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = ray_tune.TuneSearcher(begin(), hosts_alone(MadeUpHost, None, PARTITION))
    caretaker = ray_tune.Caretaker(searcher)
    caretaker.on_step_begin(0, [])
    monkeypatch.setattr("trainables.command._received", [signal.SIGINT, signal.SIGTERM])
    with pytest.raises(KeyboardInterrupt):
        caretaker.on_step_begin(1, [])


class Stopped(MadeUpHost):
    """A host that is stopped once: at the first second rung of a trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def advance(self, order: AdvanceTrial) -> TrialReport:
        if order.reported_examples:
            with suppress(FileExistsError):
                (self.folder / "stopped").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGSTOP)
        return advanced(order.spec, order.reported_examples)


class Waiting(Stopped):
    """A host that answers, but one of whose trials waits for something that never comes."""

    waits = False

    async def advance(self, order: AdvanceTrial) -> TrialReport:
        if order.reported_examples:
            with suppress(FileExistsError):
                (self.folder / "stopped").touch(exist_ok=False)
                self.waits = True
                import asyncio

                await asyncio.sleep(10**6)
        return advanced(order.spec, order.reported_examples)

    async def processor_seconds(self) -> float | None:
        return 1.0 if self.waits else None

    async def end(self) -> None:
        os._exit(1)


@pytest.fixture
def ray_here() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_a_host_that_hangs_is_ended_and_its_trials_go_on(
    ray_here: None,
    begin: Callable[..., StudyScheduler],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_tune, "RETRIES", 0)  # of which a hang takes none
    # Processes of Ray that only wait take their hundredth of a second in less.
    monkeypatch.setenv(STILL, "15")
    for kind in (Stopped, Waiting):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        scheduler = begin(given=rules(trials=4), folder=folder)
        dispatcher = hosts_alone(kind, folder, PARTITION)
        said: list[str] = []
        dispatcher.gangs.say = said.append
        dispatcher.start()
        ray_tune.run(scheduler, dispatcher)
        dispatcher.give_back(all_idle=True)
        assert (folder / "stopped").exists()
        hung = [line for line in said if line.startswith("host-") and " hangs: " in line]
        assert hung and hung[0].endswith(
            "hangs: it has computed nothing for 15 seconds. It is ended, and what it trained goes "
            "on elsewhere."
        ), said  # on a busy machine another may also seem to hang, or come up late
        records = scheduler.journal.records.values()
        assert {record.outcome for record in records} <= {Outcome.COMPLETE, Outcome.PRUNED}
        assert len(records) == 4 + 1 + 4
