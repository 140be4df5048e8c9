"""That trials are placed by what three steps took, and what happens if none can be taken."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from search_spaces import smoke
from search_spaces.declare import Budget
from study.config.spaces import typical
from study.execution.calibration import CalibrationActor, Calibrator
from study.execution.cluster import connect
from study.planning import memory_prediction
from study.planning.cluster_partition import ClusterPartition as Divided
from study.planning.placement import CUDA_BYTES, GIB, USABLE, DeviceMemory
from study.planning.workload_profile import profile
from trainables.errors import BadInput
from trainables.memory.footprint import BatchShape
from trainables.model_lookup import skeleton_of
from trainables.training.regime import Regime
from trainables.workload import Workload, WorkloadConfig

SPACE = smoke.SPACE
SIZE = 8
BUDGET = Budget(batch_size=SIZE)


def test_arms_are_placed_by_what_three_steps_took() -> None:
    workload = Workload.load(WorkloadConfig())
    surveyed = profile(workload, SPACE, BUDGET, precision="fp32", device="cpu", regime=Regime())
    assert not surveyed.probed and surveyed.steps.keys() == SPACE.arms.keys()
    shape = surveyed.batch(BUDGET)
    probed = CalibrationActor(WorkloadConfig()).probe(surveyed.recipes(SPACE), shape)
    found = surveyed.with_probes(probed)
    assert set(found.probed) == set(SPACE.arms)
    assert found.steps == surveyed.steps, "of steps that were timed"
    elsewhere = replace(surveyed, steps={}).with_probes(found.probed)
    for steps in (surveyed.steps, elsewhere.steps):
        assert steps.keys() == SPACE.arms.keys()
        for each in steps.values():
            assert each.training > each.validation > 0 and each.answer > 0
    model = skeleton_of("tiny")
    arms = memory_prediction.arms(SPACE, model, shape, precision="fp32", devices=None)
    for name, probed in found.probed.items():
        assert probed is not None and probed.micro_batch == SIZE
        assert probed.peak == pytest.approx(arms[name].footprint.peak, rel=0.1)

    enough = 1.2 * max(arm.footprint.peak for arm in arms.values())
    devices = DeviceMemory(count=1, gib=(enough / USABLE + CUDA_BYTES) / GIB)
    lora = found.probed["lora"]
    assert lora is not None
    more = {**found.probed, "lora": replace(lora, peak=int(1.3 * enough))}
    for probes, cut in ((found.probed, False), (more, True)):
        placements, nowhere = memory_prediction.predict_placements(
            SPACE,
            model,
            shape,
            precision="fp32",
            beams=found.beams,
            devices=devices,
            sharing=1,
            probed=probes,
        )
        assert not nowhere
        assert (placements.corrections["lora"] > 1.1) == cut
        assert placements.by_arm["layernorm"].pieces == 1
        assert (placements.by_arm["lora"].pieces > 1) == cut


@pytest.fixture(scope="module")
def one() -> Iterator[Divided]:
    connect(None)
    yield Divided(hosts=1, cpus=1, gpus=0, trials_per_host=1, concurrency=1, shared=False)
    ray.shutdown()


def recipes() -> dict[str, Any]:
    return {arm: typical(SPACE.arms[arm], ("vision", "fusion", "decoder")) for arm in SPACE.arms}


SHAPE = BatchShape(questions=2, images=2, question_tokens=8, answer_tokens=4)


def test_they_are_taken_where_trials_will_be(one: Divided) -> None:
    found = Calibrator(WorkloadConfig(), one).take(recipes(), SHAPE, print)
    assert {arm for arm, probed in found.items() if probed} == set(SPACE.arms)
    wait_until_free()


def wait_until_free() -> None:
    """The device is given back."""
    give_up = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < give_up, "a processor is still taken"
        time.sleep(0.1)


class Deadly:
    """Ends whoever is told of it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_if_that_kills_the_process_prediction_stands(one: Divided) -> None:
    said = list[str]()
    deadly: Any = Deadly()
    found = Calibrator(WorkloadConfig(), one).take({"lora": deadly}, SHAPE, said.append)
    assert found == {}
    assert "memory predictions stay uncorrected" in said[-1]
    wait_until_free()


def test_a_model_that_is_not_there_is_told_in_a_line(one: Divided, tmp_path: Path) -> None:
    nowhere = WorkloadConfig(model=str(tmp_path))
    with pytest.raises(BadInput, match="unknown model") as raised:
        Calibrator(nowhere, one).take(recipes(), SHAPE, print)
    assert "\n" not in str(raised.value)
    wait_until_free()


def test_a_model_larger_than_the_device_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run with its weights divided or offloaded all the same."""

    def full(self: WorkloadConfig) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(WorkloadConfig, "load_model", full)
    calibrator = CalibrationActor(WorkloadConfig())
    assert not calibrator.load()
    assert calibrator.probe(recipes(), SHAPE) == dict.fromkeys(SPACE.arms)
