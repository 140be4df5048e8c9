"""What a training step takes with and without the features of the frozen image encoder on disk.

    python -m tests.benchmarks.features            the model that ships, and MISS: 361M, 480 px
    python -m tests.benchmarks.features --shape tiny

Two trials of one configuration (LoRA wherever questions are read) take a step in turn; medians, on
a CPU of the processor time. With ``--connector`` they train the connector in full, so that only
what comes before it is kept, where that is a stage of its own. What the one pass over the images
takes is told, and after how many steps of one trial it has paid.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Collection

import torch

from tests.benchmarks import shapes
from trainables.devices import accelerator
from trainables.engine import start
from trainables.recipe import Recipe
from trainables.training.frozen_features import Features
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=shapes.SHAPES, nargs="+", default=["tiny", "miss"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--images", type=int, default=24, help="of each split, for miss")
    parser.add_argument("--connector", action="store_true", help="train the connector in full")
    given = parser.parse_args()
    precision = start.resolve_precision(given.precision)
    for shape in given.shape:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            workload = shapes.workload(shape, images=given.images)
            trained = {"connector"} if given.connector else set()
            measure(shape, workload, precision, given.batch_size, given.steps, trained)
            del os.environ["XDG_CACHE_HOME"]


def measure(
    shape: str,
    workload: Workload,
    precision: str,
    batch_size: int,
    steps: int,
    trained: Collection[str],
) -> None:
    """One line. Slots of ``trained`` are trained in full, though they only read images."""
    model = workload.model
    of_images = {slot for stage in model.stages if stage.per == "image" for slot in stage.slots}
    methods = {s: "frozen" if s in of_images else "lora" for s in model.slots}
    methods |= dict.fromkeys(trained, "full")
    recipe = {slot: {"method": method} for slot, method in methods.items()}
    config = TrialConfig(
        recipe=Recipe.from_plain(recipe), lr=1e-4, seed=0, max_examples=10**6, batch_size=batch_size
    )
    clock = time.perf_counter if accelerator.accelerated() else time.process_time
    features = Features(workload, precision=precision)
    started = clock()
    kept = Trial(workload, config, precision=precision, features=features)
    making = clock() - started
    assert kept.features_done == kept.frozen_stages, features.refused
    if not kept.features_done:
        print(f"{shape}: image encoder and connector are one stage; nothing is kept", flush=True)
        return
    trials = {"with": kept, "without": Trial(workload, config, precision=precision)}
    seconds: dict[str, list[float]] = {name: [] for name in trials}
    losses: dict[str, list[float]] = {name: [] for name in trials}
    for _ in range(steps + 1):
        for name, trial in trials.items():
            started = clock()
            losses[name].append(trial.step())
            seconds[name].append(clock() - started)
    with_, without = (statistics.median(seconds[name][1:]) for name in ("with", "without"))
    images = len({row.image for rows in workload.rows.values() for row in rows})
    apart = max(abs(a / b - 1) for a, b in zip(losses["with"], losses["without"], strict=True))
    print(
        f"{shape}, {precision} on {workload.device}, {torch.get_num_threads()} threads, batches of "
        f"{batch_size}: {1000 * with_:.0f} ms a step with features of "
        f"{kept.features_done} of {len(model.stages)} stages, {1000 * without:.0f} ms "
        f"without: {without / with_:.1f} times.\nLosses differ by {apart:.0e} at most. One pass "
        f"over {images} images took {making:.1f} s: {making / (without - with_):.0f} steps' gain.",
        flush=True,
    )


if __name__ == "__main__":
    main()
