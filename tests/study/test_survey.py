"""What a look at the loaded model says, and that trials are placed by it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search_spaces import smoke
from search_spaces.declare import Budget
from study import predicted
from study.placement import CUDA_BYTES, GIB, USABLE, Devices
from study.survey import survey
from trainables.footprint import BatchShape
from trainables.regime import Regime
from trainables.workload import Workload, WorkloadConfig, skeleton_of

SPACE = smoke.SPACE
SIZE = 8


def test_arms_are_placed_by_what_three_steps_took() -> None:
    found = survey(
        Workload.load(WorkloadConfig()),
        SPACE,
        Budget(batch_size=SIZE),
        precision="fp32",
        device="cpu",
        regime=Regime(),
        probing=True,
    )
    assert set(found.probed) == set(SPACE.arms) and found.seconds_an_example > 0
    shape = BatchShape(
        questions=SIZE,
        images=SIZE,
        question_tokens=found.question_tokens,
        answer_tokens=found.answer_tokens,
    )
    model = skeleton_of("tiny")
    arms = predicted.arms(SPACE, model, shape, precision="fp32", devices=None)
    for name, probed in found.probed.items():
        assert probed is not None and probed.micro_batch == SIZE
        assert probed.peak == pytest.approx(arms[name].footprint.peak, rel=0.1)

    enough = 1.2 * max(arm.footprint.peak for arm in arms.values())
    devices = Devices(count=1, gib=(enough / USABLE + CUDA_BYTES) / GIB)
    lora = found.probed["lora"]
    assert lora is not None
    more = {**found.probed, "lora": replace(lora, peak=int(1.3 * enough))}
    for probes, cut in ((found.probed, False), (more, True)):
        placements, nowhere = predicted.placements(
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
        assert placements.by_arm["layernorm"].pieces == 1
        assert (placements.by_arm["lora"].pieces > 1) == cut
