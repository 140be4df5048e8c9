"""Measures the memory and time of three steps of a trial, to correct a memory prediction.

The model is the real one. Images and questions are made up, as many and as long as in the predicted
batch: the memory of a step does not depend on their content.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from trainables.data.common.dataset import Dataset
from trainables.memory.fake_weights import storage_bytes
from trainables.memory.footprint import BatchShape
from trainables.memory.measure import is_out_of_memory, measure_growth, release_cached
from trainables.model_contract import Model
from trainables.recipe import Recipe
from trainables.training.frozen_features import Features
from trainables.training.step_seconds import StepSeconds, measure
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

STEPS = 3
"""Number of steps. The second is the first with the optimizer's state in memory, the third the
first that is like all later ones."""


@dataclass(frozen=True, kw_only=True)
class MeasuredSteps:
    """Measured memory and time of training steps."""

    micro_batch: int
    """Maximum number of questions computed at once."""
    pieces: int
    """Number of pieces in which the batch was computed."""
    peak: int
    """Bytes of tensors at the peak, the resident base included."""
    steps: StepSeconds | None
    """Seconds of the parts of a trial, for each example; None where memory ran out in a part that
    training has not: a validation loss or answers of a whole batch at once."""


def measure_steps(
    model: Model, recipe: Recipe, shape: BatchShape, *, precision: str, device: torch.device
) -> MeasuredSteps | None:
    """Train three steps on a batch of ``shape``, on the one device that holds ``model``.

    Whenever memory runs out, the number of questions computed at once is halved. The result is None
    if not even one question fits.
    """
    config = TrialConfig(
        recipe=recipe, lr=1e-6, seed=0, max_examples=10**6, batch_size=shape.questions
    )
    made_up, micro_batch = synthetic_workload(model, shape, device), shape.questions
    while True:
        try:
            return _measure(made_up, config, precision, micro_batch)
        except Exception as error:  # several types say that memory ran out
            if not is_out_of_memory(error):
                raise
        release_cached()  # not in the ``except`` block: there the error still holds tensors
        if micro_batch == 1:
            return None
        micro_batch = -(-micro_batch // 2)


def _measure(
    made_up: Workload, config: TrialConfig, precision: str, micro_batch: int
) -> MeasuredSteps:
    gc.collect()
    base = sum(storage_bytes(made_up.model.network).values())
    with measure_growth() as grown:
        trial = Trial(made_up, config, precision=precision, micro_batch=micro_batch)
        for _ in range(STEPS):
            trial.step()
    return MeasuredSteps(
        micro_batch=micro_batch,
        pieces=-(-config.batch_size // micro_batch),
        peak=base + grown.size,
        steps=_seconds(trial, precision),
    )


def _seconds(trial: Trial, precision: str) -> StepSeconds | None:
    """What the parts of the trial take; None if one of them runs out of memory."""
    features = Features(trial.workload, precision=precision)
    frozen = features.frozen_stages(trial.config.recipe)
    try:
        return measure(trial, time.perf_counter, frozen_stages=frozen, answers=True)
    except Exception as error:  # several types say that memory ran out
        if not is_out_of_memory(error):
            raise
        return None


def synthetic_workload(model: Model, shape: BatchShape, device: torch.device) -> Workload:
    """Workload of questions about black images, of which one batch has ``shape``."""
    images = np.zeros((shape.images, model.image_size, model.image_size, 3), dtype=np.uint8)
    row = model.tokenize(question="is it so", answer="yes", image=0)
    one = BatchShape.measure(model.collate([row], images))
    longer = shape.question_tokens - one.question_tokens, shape.answer_tokens - one.answer_tokens
    row = replace(
        row,
        question=(*row.question, *row.question[-1:] * max(longer[0], 0)),
        answer=(*row.answer, *row.answer[-1:] * max(longer[1], 0)),
    )
    rows = tuple(replace(row, image=i % shape.images) for i in range(shape.questions))
    return Workload(
        model=model,
        dataset=Dataset(
            name="made up", description="", contents={}, digest="", train=(), validation=(), test=()
        ),
        images_NSSC=images,
        rows={"train": rows},
        device=device,
        answer_tokens=shape.answer_tokens,
        beams=model.beams,
    )
