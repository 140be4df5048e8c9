"""Part 2: predicted memory against the most that the device's allocator gave out."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from functools import cache, partial

import torch

from tests.benchmarks import memory
from tests.benchmarks.gpu.machine import NOTHING, Machine, Measurement, Result, Verdict
from trainables.devices import accelerator
from trainables.memory.measure import GIB, release_cached
from trainables.models.blip import Blip

TITLE = "memory as predicted"
NEAR, COMBINATIONS = 10, 30
GOAL = f"predicted within {NEAR}% of max_memory_allocated in at least {COMBINATIONS} combinations"
WEIGHT = 2
MODELS = ((384, 6, 224), (768, 12, 384))
"""Width, layers and pixels a side of random BLIPs."""
BATCHES = ((8, "fp32"), (32, "fp32"), (32, "bf16"))


def measurements(machine: Machine) -> list[Measurement]:
    """Two models, six recipes, three kinds of batches."""
    models = memory.MODELS if machine.small else MODELS
    batches = memory.BATCHES if machine.small else BATCHES
    return [
        Measurement(
            name=f"{width}x{layers} {pixels}px {'/'.join(recipe)} {questions} {precision}",
            take=partial(compare, (width, layers, pixels), recipe, questions, precision),
        )
        for (width, layers, pixels), recipe, (questions, precision) in itertools.product(
            models, memory.RECIPES, batches
        )
    ]


def line(result: Result) -> str:
    """Predicted and measured GiB."""
    return (
        f"predicted {result['predicted_gib']:.3f} GiB, measured {result['measured_gib']:.3f}: "
        f"{result['error_percent']:+.1f}%"
    )


def verdict(results: Mapping[str, Result]) -> Verdict:
    """How many are near."""
    errors = sorted(abs(r["error_percent"]) for r in results.values() if "error_percent" in r)
    if not errors:
        return NOTHING
    within = sum(error <= NEAR for error in errors)
    enough = len(errors) >= COMBINATIONS
    return Verdict(
        within >= COMBINATIONS if enough else None,
        f"{within} of {len(errors)} within {NEAR}%, median {statistics.median(errors):.1f}% off, "
        f"at most {errors[-1]:.1f}%",
    )


def compare(
    sizes: tuple[int, int, int], methods: tuple[str, ...], questions: int, precision: str
) -> Result:
    """Bytes at the peak of a trial's second step, and the prediction of them."""
    model = _model(sizes)
    chosen = memory.every(model, methods)
    _warm_up()
    measured = memory.measure(model, chosen, questions, precision)
    release_cached()
    predicted = memory.predict(model, chosen, questions, precision).peak
    return {
        "measured_gib": measured / GIB,
        "predicted_gib": predicted / GIB,
        "error_percent": 100 * (predicted / measured - 1),
    }


@cache
def _model(sizes: tuple[int, int, int]) -> Blip:
    return memory.blip(*sizes)


@cache
def _warm_up() -> None:
    """Let libraries allocate the workspaces that they keep, which are no trial's."""
    for precision in (torch.float32, torch.bfloat16):
        layer = torch.nn.Linear(256, 256, dtype=precision, device=accelerator.current())
        layer(torch.ones(256, 256, dtype=precision, device=accelerator.current())).sum().backward()
    accelerator.synchronise()
