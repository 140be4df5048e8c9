"""A made-up workload for a model: questions about noise. It needs no pytest, so that benchmarks use
it where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from trainables.data.common.dataset import Dataset, Example
from trainables.devices import accelerator
from trainables.model_contract import Model
from trainables.workload import Workload

WORDS = "is this a ct mri of the head chest liver lesion left right yes no one two where ?".split()
QUESTIONS = (
    ("is this a ct ?", "yes"),
    ("is this a mri of the head ?", "no"),
    ("where is the lesion ?", "left of the liver"),
    ("where ?", "chest"),
    ("is the lesion of the liver left or right of the head ?", "right"),
)
IMAGES = 6
SPLITS = {"train": 24, "validation": 10, "test": 7}


def made_up(model: Model, device: torch.device | None = None) -> Workload:
    """Questions about noise: enough for whatever does not ask how good the answers are. The model
    is brought to ``device``; by default the one on which this process computes."""
    images_NSSC = np.random.default_rng(0).integers(
        0, 256, (IMAGES, model.image_size, model.image_size, 3), dtype=np.uint8
    )
    splits = {split: _examples(split, count) for split, count in SPLITS.items()}
    rows = {
        split: tuple(
            model.tokenize(question=e.question, answer=e.answer, image=int(e.image_id))
            for e in examples
        )
        for split, examples in splits.items()
    }
    device = device or accelerator.current()
    model.network.to(device)
    return Workload(
        model=model,
        dataset=Dataset(
            name="made_up", description="noise", contents={}, digest="0" * 64, **splits
        ),
        images_NSSC=images_NSSC,
        rows=rows,
        device=device,
    )


def _examples(split: str, count: int) -> tuple[Example, ...]:
    return tuple(
        Example(
            question_id=f"{split}-{i}",
            image_id=str(i % IMAGES),
            image=Path(f"/nowhere/{i % IMAGES}.png"),
            question=QUESTIONS[i % len(QUESTIONS)][0],
            answer=QUESTIONS[i % len(QUESTIONS)][1],
            answer_type="open",
        )
        for i in range(count)
    )
