"""What an out-of-memory teaches: the trial is tried again in less, and all arms have learnt."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch

from search_spaces.declare import Arm, Budget, LogUniform, Space, method
from study.execution import ray_tune
from study.execution.cluster import connect
from study.execution.dispatcher import Dispatcher
from study.execution.gang_pool import GangPool
from study.execution.host_pool import HostPool
from study.planning.arm_placements import OUT_OF_MEMORY_KEY, ArmPlacements
from study.planning.cluster_partition import ClusterPartition
from study.planning.placement import DeviceMemory as Memory
from study.planning.placement import Infeasible, Placement, halved, uniform_placement
from study.search.journal import StudyJournal
from study.search.scheduler import SearchRules, StudyScheduler
from study.trials.record import Outcome
from study.trials.spec import Kind, TrialSpec
from study.worker.host import Host
from study.worker.host_actor import HostActor
from study.worker.host_config import HostConfig
from tests.study import small

WHOLE = uniform_placement(devices=1, deepspeed="off", batch_size=256, sharing=1, reason="")


def test_what_was_learnt_holds_for_the_rest_of_the_study(
    begin: Callable[..., StudyScheduler],
) -> None:
    memory = Memory(count=1, gib=17)
    usable = memory.usable

    def place(arm: str, correction: float) -> Placement | Infeasible:
        """Predicted: 12 GiB for a batch of one arm, 8 for those of the other; 1 to answer."""
        needs = {"layernorm": 12, "lora": 8, "untuned": 1}[arm] * 2**30 * correction
        found = replace(WHOLE, peak=int(needs))
        while found.peak > usable:
            half = halved(found)
            assert half is not None
            found = replace(half, peak=int(found.peak / 2))
        return found

    first: dict[str, Any] = {arm: place(arm, 1.0) for arm in ("layernorm", "lora")}
    placements = ArmPlacements(first, WHOLE, place_arm=place, devices=memory)
    scheduler = begin()
    specs = [spec for spec in (scheduler.next() for _ in range(6)) if spec is not None]
    large = next(spec for spec in specs if spec.arm == "layernorm")
    had = placements.find(large)
    note = placements.out_of_memory(large, had)
    assert "256 questions at once" in note and "128 questions at once in 2 pieces" in note
    assert "predicted 12.0 GiB" in note
    assert placements.correction == pytest.approx(1.05 * usable / (12 * 2**30))
    assert placements.find(large).micro_batch == 128
    assert placements.by_arm["lora"].micro_batch == 256, "it fits all the same"
    assert placements.out_of_memory(large, placements.find(large)) == "", "once is enough"


def test_the_untuned_model_is_tried_once_more_too() -> None:
    """By what is known of memory, or with half as many questions at once; one cannot be halved."""
    memory = Memory(count=1, gib=17)

    def place(arm: str, correction: float) -> Placement | Infeasible:
        """Predicted: 14 GiB for 128 questions."""
        assert arm == "untuned"
        at_once = 128
        while 14 * 2**30 * correction * at_once / 128 > memory.usable:
            at_once //= 2
        peak = int(14 * 2**30 * at_once / 128 * correction)
        return replace(WHOLE, micro_batch=at_once, evaluation_batch=at_once, peak=peak)

    spec = TrialSpec(
        kind=Kind.UNTUNED,
        arm="untuned",
        parameters={},
        recipe={},
        lr=0.0,
        seed=0,
        stops=(),
        max_examples=0,
        batch_size=32,
        base="made up",
    )
    first = place("untuned", 1.0)
    assert isinstance(first, Placement)
    known = ArmPlacements({}, first, place_arm=place, devices=memory)
    unknown = ArmPlacements({}, replace(WHOLE, micro_batch=2, evaluation_batch=2))
    note = known.out_of_memory(spec, known.find(spec))
    assert "128 questions at once" in note and "tried again as" in note
    assert known.find(spec).evaluation_batch == 64
    assert unknown.out_of_memory(spec, unknown.find(spec))
    assert unknown.find(spec).evaluation_batch == 1
    least = ArmPlacements({}, replace(WHOLE, micro_batch=1, evaluation_batch=1))
    assert least.out_of_memory(spec, least.find(spec)) == "", "there is no less"


LIMIT_BYTES = 4 * 2**30
"""That the host's process may map beyond what it has when its model is there."""
QUESTION_BYTES = 3 * 2**29
"""That a step asks for, for each question at once: two fit, three do not."""


class Hungry(HostActor):
    """A host whose process has a limit, and whose model asks for much in training."""

    def __init__(self, config: HostConfig) -> None:
        super().__init__(config)
        assert isinstance(self._host, Host)
        family: Any = type(self._host.residents.workload.model)
        losses = family.losses

        def hungry(model: Any, network: Any, batch: Any, **settings: Any) -> torch.Tensor:
            if network.training:
                torch.empty(len(batch.image_B) * QUESTION_BYTES, dtype=torch.uint8)
            found: torch.Tensor = losses(model, network, batch, **settings)
            return found

        family.losses = hungry
        has = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (has + LIMIT_BYTES, resource.RLIM_INFINITY))


@pytest.mark.slow
@pytest.mark.long
def test_a_trial_that_ran_out_of_memory_ends_well_in_less(tmp_path: Path) -> None:
    config = small.config(tmp_path)
    study = config.study_folder.path
    study.mkdir()
    arms = {"lora": Arm(everywhere=method("lora"), lr=LogUniform(1e-3, 1e-2))}
    budget = Budget(trials=1, max_examples=16, rungs=0, batch_size=small.BATCH)
    rules = SearchRules(
        space=Space(question="?", arms=arms, budget=budget),
        budget=budget,
        slots=("vision", "connector", "decoder"),
        seed=0,
        confirm_seeds=1,
        base="made up",
    )
    scheduler = StudyScheduler(rules, StudyJournal(study))
    one = ClusterPartition(hosts=1, cpus=1, gpus=0, trials_per_host=1, concurrency=1, shared=False)
    whole = uniform_placement(
        devices=1, deepspeed="off", batch_size=small.BATCH, sharing=1, reason=""
    )
    connect(None)
    try:
        hosts, gangs = HostPool(Hungry, config, one), GangPool(config, one)
        ray_tune.run(scheduler, Dispatcher(hosts, gangs, ArmPlacements({"lora": whole}, whole)))
    finally:
        ray.shutdown()
    searched, confirmed = (
        next(r for r in scheduler.journal.records.values() if r.spec.kind is kind)
        for kind in (Kind.SEARCH, Kind.CONFIRM)
    )
    note = searched.ran[OUT_OF_MEMORY_KEY]
    assert "can't allocate memory" in note and "4 questions at once" in note
    assert "tried again as" in note and "2 questions at once in 2 pieces" in note
    assert OUT_OF_MEMORY_KEY not in confirmed.ran, "what one trial learnt the next one knows"
    for record in (searched, confirmed):
        assert (record.outcome, record.error) == (Outcome.COMPLETE, "")
        assert record.ran["micro_batch"] == "2"
        expected = small.losses(small.alone(config, record.spec))
        assert [rung.validation_loss for rung in record.rungs] == pytest.approx(expected, rel=1e-4)
