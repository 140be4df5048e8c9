"""Models of published shapes with random weights, for what asks how long, not how good."""

from __future__ import annotations

from dataclasses import replace

import torch

from trainables.data.images import load_images
from trainables.models.blip import PRESETS, Blip
from trainables.workload import Workload, WorkloadConfig


def miss(images: int) -> Workload:
    """The 361M BLIP of MISS at 480 px, and the phantom questions about the first ``images`` images
    of the training and of the validation split, as tokens of the small model's vocabulary."""
    from transformers import BlipConfig, BlipForQuestionAnswering

    small = Workload.load(WorkloadConfig())
    vision = {**PRESETS["miss"], "initializer_range": 0.02}  # the default is for loading only
    torch.manual_seed(0)
    network = BlipForQuestionAnswering(BlipConfig(vision_config=vision))
    network.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    assert isinstance(small.model, Blip)
    model = Blip(name="miss", digest="random", network=network, tokenizer=small.model.tokenizer)
    model.network.to(small.device)  # type: ignore[arg-type]  # transformers wraps torch's
    paths = dict(small.dataset.images())
    ids = list(paths)
    chosen: list[int] = []
    rows = {}
    for split in ("train", "validation"):
        first = sorted({row.image for row in small.rows[split]})[:images]
        place = {image: len(chosen) + n for n, image in enumerate(first)}
        chosen += first
        about = [row for row in small.rows[split] if row.image in place]
        rows[split] = tuple(
            replace(
                row,
                image=place[row.image],
                answer=(model.begin, *row.answer[1:-1], model.end),
            )
            for row in about
        )
    pixels = load_images([paths[ids[image]] for image in chosen], model.image_size)
    return replace(small, model=model, images_NSSC=pixels, rows=rows)
