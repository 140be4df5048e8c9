"""Predicted peak memory against the allocator's, for models, recipes, batches and precisions.

    python -m tests.benchmarks.memory [--workers N [--questions N]]

The measured side trains for real: two steps of a trial, on random weights and random images. What
a model takes does not depend on their values. ``--workers``: DeepSpeed's ZeRO 0 to 3 instead, with
and without offload, as one of as many workers has it that share batches of so many questions.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import BlipConfig, BlipForQuestionAnswering

from trainables import recipe
from trainables.data.common.dataset import Dataset
from trainables.devices import accelerator
from trainables.engine.deepspeed_config import OFFLOAD
from trainables.memory import fake_weights, footprint
from trainables.memory.measure import measure_growth
from trainables.model_contract import Row
from trainables.models.blip import Blip
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.weight_sharing import share_weights
from trainables.workload import Workload

MIB = 2**20
QUESTION_TOKENS, ANSWER_TOKENS = 24, 8

# Width, layers, pixels a side.
MODELS = ((64, 2, 64), (192, 4, 96))
RECIPES = (
    ("lora", "lora", "lora"),
    ("frozen", "lora", "lora"),
    ("layernorm", "layernorm", "layernorm"),
    ("full", "full", "full"),
    ("frozen", "full", "lora"),
    ("frozen", "frozen", "prefix"),
)
"""Of vision, fusion, decoder."""
BATCHES = ((4, "fp32"), (24, "fp32"), (24, "bf16"))
STAGED_MODELS = (MODELS[1], (384, 6, 96))
STAGED_RECIPES = (RECIPES[1], RECIPES[3], RECIPES[4])
KINDS = ("0", "1", "2", "3", f"2{OFFLOAD}", f"3{OFFLOAD}")
"""Of engines, each of which trains each recipe."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One combination. Bytes."""

    name: str
    measured: int
    predicted: int
    seconds: float
    """That predicting took."""

    @property
    def error_percent(self) -> float:
        """Of the prediction; positive where it is too much."""
        return 100 * (self.predicted / self.measured - 1)


def main() -> None:
    """Print a line for each combination, then how far off they are."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int)
    parser.add_argument("--questions", type=int, default=8, help="in a batch of the workers")
    given = parser.parse_args()
    how = 14 if given.workers else 5
    print(f"{'model':14} {'recipe':30} {'batch':>5} {'':{how}} measured predicted MiB  error")
    found = []
    staged = stages(given.workers, questions=given.questions) if given.workers else None
    for compared in staged or combinations():
        found.append(compared)
        measured, predicted = compared.measured / MIB, compared.predicted / MIB
        print(
            f"{compared.name} {measured:8.1f} {predicted:9.1f}     {compared.error_percent:+6.1f}%",
            flush=True,
        )
    errors = sorted(abs(compared.error_percent) for compared in found)
    print(
        f"{len(found)} combinations: median {statistics.median(errors):.1f}% off, at most "
        f"{errors[-1]:.1f}%, {sum(error <= 10 for error in errors)} within 10%; "
        f"predicted in {statistics.median(c.seconds for c in found):.1f} s (median)"
    )


def combinations() -> Iterator[Compared]:
    """All of them, one after another."""
    for width, layers, image_px in MODELS:
        model = blip(width, layers, image_px)
        for methods, (questions, precision) in itertools.product(RECIPES, BATCHES):
            chosen = every(model, methods)
            peak = measure(model, chosen, questions, precision)
            started = time.perf_counter()
            footprint_ = predict(model, chosen, questions, precision)
            yield Compared(
                name=f"{model.name:14} {'/'.join(methods):30} {questions:5} {precision:5}",
                measured=peak,
                predicted=footprint_.peak,
                seconds=time.perf_counter() - started,
            )


def stages(
    workers: int,
    models: Sequence[tuple[int, int, int]] = STAGED_MODELS,
    recipes: Sequence[tuple[str, str, str]] = STAGED_RECIPES,
    questions: int = 8,
) -> Iterator[Compared]:
    """Every kind of DeepSpeed's, as the first of ``workers`` has them.

    The others are not there: nothing is exchanged, and what a worker takes does not depend on what
    it is told. Over gloo one would not see what gloo's threads give back.
    """
    from study.planning.zero_memory import sharded

    planned: list[tuple[Blip, Recipe, str, footprint.Footprint, float]] = []
    for model, methods in itertools.product([blip(*sizes) for sizes in models], recipes):
        chosen, started = every(model, methods), time.perf_counter()
        predicted = predict(model, chosen, questions // workers, "fp32")
        name = f"{model.name:14} {'/'.join(methods):30} {questions:5}"
        planned.append((model, chosen, name, predicted, time.perf_counter() - started))
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=workers)
    for (model, chosen, name, predicted, seconds), kind in itertools.product(planned, KINDS):
        needs = sharded(predicted, kind, workers)
        # On a CPU the host's memory is the device's, but under ZeRO-3 for the base, which is there
        # either way.
        base = (
            sum(fake_weights.storage_bytes(model.network).values()) if kind.startswith("3") else 0
        )
        yield Compared(
            name=f"{name} {f'zero{kind}':14}",
            measured=measure(model, chosen, questions, "fp32", kind) - base,
            predicted=needs.device + needs.host - base,
            seconds=seconds,
        )


def every(model: Blip, methods: Sequence[str]) -> Recipe:
    """A method for each slot."""
    return Recipe.from_plain({s: {"method": m} for s, m in zip(model.slots, methods, strict=True)})


def blip(width: int, layers: int, image_px: int) -> Blip:
    """A random BLIP."""
    common: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
    }
    config = BlipConfig(
        text_config={**common, "encoder_hidden_size": width, "vocab_size": 2000},
        vision_config={**common, "image_size": image_px, "patch_size": 16},
    )
    network = BlipForQuestionAnswering(config)
    network.eval().requires_grad_(False)
    name = f"{width}x{layers}, {image_px} px"
    return Blip(name=name, digest="0" * 64, network=network, tokenizer=None)


def measure(
    model: Blip, chosen: Recipe, questions: int, precision: str, deepspeed: str = "off"
) -> int:
    """Peak bytes of tensors of a real trial in its second step, the base included."""
    row = {"question": (1,) * QUESTION_TOKENS, "answer": (1,) * ANSWER_TOKENS}
    rows = tuple(Row(image=i, **row) for i in range(questions))
    size = model.image_size
    workload = Workload(
        model=model,
        dataset=Dataset(
            name="noise", description="", contents={}, digest="", train=(), validation=(), test=()
        ),
        images_NSSC=np.zeros((questions, size, size, 3), dtype=np.uint8),
        rows={"train": rows},
        device=accelerator.current(),
    )
    model.network.to(workload.device)  # type: ignore[arg-type]  # transformers wraps torch's
    base = sum(fake_weights.storage_bytes(model.network).values())
    config = TrialConfig(
        recipe=chosen, lr=1e-4, seed=0, max_examples=8 * questions, batch_size=questions
    )
    gc.collect()
    with measure_growth() as grown:
        trial = Trial(workload, config, precision=precision, deepspeed=deepspeed)
        assert trial.engine is not None
        batch = trial.batch("train", trial.upcoming()[:: trial.ranks.count])
        for _ in range(2):
            trial.engine.step([batch], 1e-4)
    return base + grown.size


def predict(model: Blip, chosen: Recipe, questions: int, precision: str) -> footprint.Footprint:
    """The same, without running it."""
    network = share_weights(model.network)
    applied = recipe.apply(chosen, model, network, seed=0)
    shape = footprint.BatchShape(
        questions=questions,
        images=questions,
        question_tokens=QUESTION_TOKENS,
        answer_tokens=ANSWER_TOKENS,
    )
    return footprint.predict(model, network, applied, training=shape, precision=precision)


if __name__ == "__main__":
    main()
