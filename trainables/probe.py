"""What a trial really takes, from three of its steps: what a prediction is corrected by.

The model is the real one; images and questions are made up, as many and as long as in the batch
that was predicted. What a step takes depends on no value.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from trainables import memory
from trainables.data.dataset import Dataset
from trainables.fakes import storages
from trainables.footprint import BatchShape
from trainables.models.contract import Model
from trainables.recipe import Recipe
from trainables.trial import Trial, TrialConfig
from trainables.workload import Workload

STEPS = 3
"""The second is the first with the optimizer's state, the third the first like all others."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What was seen. A batch was computed in ``pieces`` of ``micro_batch`` questions at most."""

    micro_batch: int
    pieces: int
    peak: int
    """Bytes of tensors when most were there, the resident base included."""
    seconds: float
    """Of the last step."""


def probe(
    model: Model, recipe: Recipe, shape: BatchShape, *, precision: str, device: torch.device
) -> Probed | None:
    """Train three steps of a batch of ``shape`` on one device; where memory is out, with half as
    many questions at once, and so on. None if not even one question fits. ``model`` is on
    ``device``."""
    config = TrialConfig(
        recipe=recipe, lr=1e-6, seed=0, max_examples=10**6, batch_size=shape.questions
    )
    made_up, micro_batch = workload(model, shape, device), shape.questions
    while True:
        try:
            return _probed(made_up, config, precision, micro_batch)
        except Exception as error:  # memory is out by several types
            if not memory.lacks(error):
                raise
        memory.give_back()  # not while the error, which holds what was there, is known
        if micro_batch == 1:
            return None
        micro_batch = -(-micro_batch // 2)


def _probed(made_up: Workload, config: TrialConfig, precision: str, micro_batch: int) -> Probed:
    gc.collect()
    base = sum(storages(made_up.model.network).values())
    with memory.growing() as grown:
        trial = Trial(made_up, config, precision=precision, micro_batch=micro_batch)
        for _ in range(STEPS):
            started = time.perf_counter()
            trial.step()
        seconds = time.perf_counter() - started
    return Probed(
        micro_batch=micro_batch,
        pieces=-(-config.batch_size // micro_batch),
        peak=base + grown.size,
        seconds=seconds,
    )


def workload(model: Model, shape: BatchShape, device: torch.device) -> Workload:
    """Questions about black images, of which a batch is of ``shape``."""
    images = np.zeros((shape.images, model.image_size, model.image_size, 3), dtype=np.uint8)
    row = model.tokenize(question="is it so", answer="yes", image=0)
    one = BatchShape.of(model.collate([row], images))
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
    )
