"""BLIP's attention as transformers computes it against ours: time and memory.

    python -m tests.benchmarks.attention                    the model that ships, 96 and 224 px
    python -m tests.benchmarks.attention --shape miss       MISS: 361M parameters, 480 px

Two trials of one configuration take a step in turn; medians, on a CPU of the processor time. LoRA
is in every slot, or on the text stacks alone, with what the image encoder gives on disk. Memory is
what tensors take at the peak of a step, the base included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

import torch
from torch import nn
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from tests.benchmarks import shapes
from trainables.engine import start
from trainables.memory import fake_weights, measure
from trainables.memory.measure import measure_growth
from trainables.models.common.attention import ImageAttention, TextAttention
from trainables.recipe import Recipe
from trainables.training.frozen_features import Features
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


class PlainText(BlipTextSelfAttention):
    """transformers', with the mask where it looks for it."""

    def forward(  # type: ignore[override]  # the rest is passed on
        self, hidden_states: Any, attention_mask: Any = None, **kwargs: Any
    ) -> Any:
        """As its own."""
        kwargs["encoder_attention_mask"] = attention_mask
        return super().forward(hidden_states, attention_mask, **kwargs)


PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    ImageAttention: BlipAttention,
    TextAttention: PlainText,
}


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=("tiny", "miss"), default="tiny")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    given = parser.parse_args()
    precision = start.resolve_precision(given.precision)
    print(
        f"{given.shape}, {precision}, {torch.get_num_threads()} threads, "
        f"batches of {given.batch_size}, {given.steps} steps\n"
        "pixels lora in    transformers ms  ours ms  gain  transformers GiB  ours GiB  gain  "
        "losses differ by"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for size in (96, 224) if given.shape == "tiny" else (None,):
            workload = shapes.workload(given.shape, images=given.batch_size, image_size=size)
            slots = [*workload.model.slots]
            for tuned in (slots, slots[1:]):
                compare(workload, tuned, precision, given.batch_size, given.steps)


def compare(
    workload: Workload, tuned: list[str], precision: str, batch_size: int, steps: int
) -> None:
    """One line."""
    config = TrialConfig(
        recipe=Recipe.from_plain({slot: {"method": "lora"} for slot in tuned}),
        lr=1e-3,
        seed=0,
        max_examples=10**6,
        batch_size=batch_size,
    )
    base = sum(fake_weights.storage_bytes(workload.model.network).values())
    clock = time.perf_counter if workload.device.type == "cuda" else time.process_time
    features = Features(workload, precision=precision)
    trials = [Trial(workload, config, precision=precision, features=features) for _ in range(2)]
    for module in trials[0].losses.network.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    gib, losses = [], []
    for trial in trials:
        with measure_growth() as grown:
            losses.append(trial.step())
        gib.append((base + grown.size) / measure.GIB)
    seconds: list[list[float]] = [[], []]
    for _ in range(steps):
        for trial, taken in zip(trials, seconds, strict=True):
            started = clock()
            trial.step()
            taken.append(clock() - started)
    plain, ours = (1e3 * statistics.median(taken) for taken in seconds)
    apart, where = abs(losses[1] / losses[0] - 1), f"{len(tuned)} slots"
    print(
        f"{workload.model.image_size:6} {where:9} {plain:15.0f} {ours:8.0f} {plain / ours:5.2f} "
        f"{gib[0]:17.2f} {gib[1]:9.2f} {gib[0] / gib[1]:5.2f}  {apart:.0e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
