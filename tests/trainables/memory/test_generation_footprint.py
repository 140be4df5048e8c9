"""The predicted memory of generating answers is never too low, and not much too high."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest

from trainables.memory import generation_footprint
from trainables.memory.footprint import BatchShape
from trainables.memory.measure import measure_growth
from trainables.model_contract import Skeleton
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


@pytest.mark.parametrize("beams", [1, 3])
def test_it_is_enough_and_not_far_too_much(workload: Workload, beams: int) -> None:
    rows = workload.rows["train"]
    workload = replace(workload, beams=beams)
    nothing = Recipe.from_plain({slot: {"method": "frozen"} for slot in workload.model.slots})
    trial = Trial(workload, TrialConfig(recipe=nothing, lr=1.0, seed=0, max_examples=1))
    shape = BatchShape.measure(workload.batch("train", range(len(rows))))
    shape = replace(shape, answer_tokens=workload.answer_tokens)
    model = Skeleton.from_model(workload.model, question_tokens=shape.question_tokens)
    predicted = generation_footprint.predict(model, shape, beams=beams, precision="fp32")
    gc.collect()
    with measure_growth() as grown:
        trial.answers("train")
    assert grown.size < predicted.without_base < 2.5 * grown.size
    assert predicted.evaluating and predicted.activations == {}
