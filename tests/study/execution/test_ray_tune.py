"""What Ray Tune is told of trials. It runs them for real in tests of hosts and whole studies."""

from collections.abc import Callable

import psutil
import pytest
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from study.execution.ray_tune import TuneScheduler, TuneSearcher
from study.planning.cluster_partition import ClusterPartition
from study.search.scheduler import StudyScheduler
from tests.study.made_up import MadeUpHost, hosts_alone

PARTITION = ClusterPartition(
    hosts=1, cpus=1, gpus=0, trials_per_host=1, concurrency=1, shared=False
)


@pytest.fixture
def controller(
    begin: Callable[..., StudyScheduler], monkeypatch: pytest.MonkeyPatch
) -> TuneController:
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")  # else it asks a running Ray
    scheduler = TuneScheduler(TuneSearcher(begin(), hosts_alone(MadeUpHost, None, PARTITION)))
    scheduler.keeping = True  # there are no clients to be kept
    return TuneController(scheduler=scheduler)


def test_tune_forgets_trials_that_ended_or_failed_and_no_others(
    controller: TuneController,
) -> None:
    statuses = (Trial.TERMINATED, Trial.RUNNING, Trial.ERROR, Trial.PENDING)
    trials = [Trial("no trainable", stub=True, trial_id=status) for status in statuses]
    for trial in trials:
        controller.add_trial(trial)
    assert controller._get_trial_checkpoints() == dict.fromkeys(statuses, ("{}", "{}"))
    for trial, status in zip(trials, statuses, strict=True):
        controller._set_trial_status(trial, status)
        controller._mark_trial_to_checkpoint(trial)
    added = Trial("no trainable", stub=True, trial_id="added")
    controller.add_trial(added)
    left = {trials[1], trials[3], added}
    assert set(controller.get_trials()) == controller.get_live_trials() == left
    assert controller._trials_to_cache == left
    assert not controller._stopped_trials | controller._failed_trials
    assert {*controller._get_trial_checkpoints()} == {trial.trial_id for trial in left}


def test_freed_memory_goes_back_to_the_system_when_a_trial_begins(
    controller: TuneController,
) -> None:
    def resident() -> int:
        return psutil.Process().memory_info().rss

    blocks = [bytearray(2000) for _ in range(40_000)]
    blocks = blocks[::10]  # so that no part of the heap is free as a whole
    before = resident()
    controller.add_trial(Trial("no trainable", stub=True))
    assert len(blocks) == 4000 and before - resident() > 30 * 2**20
