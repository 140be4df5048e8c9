"""What it costs and saves that questions about one image come together (``--questions-per-image``).

    python -m tests.benchmarks.questions_per_image [--image-size 224] [--max-examples 3200]

Trials of the model that ships, methods in every slot, alike but for the order of the questions. All
take a step in turn, so that what else the machine does hits all; processor seconds of training,
then validation loss and score, mean over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import product
from typing import Any

from trainables import engine
from trainables.data.scores import score
from trainables.recipe import Recipe
from trainables.trial import Trial, TrialConfig
from trainables.workload import Workload, WorkloadConfig

METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "layernorm": ({"method": "layernorm"}, 2e-2),
    "lora": ({"method": "lora", "rank": 4}, 8e-3),
}
"""Name -> settings, and a learning rate near the best that a study found."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--max-examples", type=int, default=3200)
    parser.add_argument("--together", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    precision = engine.resolve_precision("auto")
    workload = Workload.load(WorkloadConfig(image_size=given.image_size))
    print(f"{workload.model.image_size} px, {precision}, {given.max_examples} examples")
    print(
        f"{'method':10} {'together':>8} {'images a batch':>14} {'s':>7} {'ratio':>6}  loss       %"
    )
    for method in METHODS:
        measure(workload, precision, method, given)


def measure(workload: Workload, precision: str, method: str, given: argparse.Namespace) -> None:
    """The lines of a method."""
    tuning, lr = METHODS[method]
    keys = list(product(given.together, range(1, given.seeds + 1)))
    trials = {
        (together, seed): Trial(
            workload,
            TrialConfig(
                recipe=Recipe.of(dict.fromkeys(workload.model.slots, tuning)),
                lr=lr,
                seed=seed,
                max_examples=given.max_examples,
                batch_size=16,
                questions_per_image=together,
            ),
            precision=precision,
        )
        for together, seed in keys
    }
    seconds = dict.fromkeys(given.together, 0.0)
    images: dict[int, list[int]] = {together: [] for together in given.together}
    while trials[keys[0]].examples_seen < given.max_examples:
        for (together, _), trial in trials.items():
            rows = workload.rows["train"]
            images[together].append(len({rows[i].image for i in trial.upcoming()}))
            began = time.process_time()
            trial.step()
            seconds[together] += (time.process_time() - began) / given.seeds
    for together in given.together:
        same = [trial for (other, _), trial in trials.items() if other == together]
        losses = [trial.validation_loss() for trial in same]
        asked = workload.dataset.validation
        scores = [score(asked, trial.answers("validation"))["overall"] for trial in same]
        print(
            f"{method:10} {together:8} {statistics.mean(images[together]):14.1f} "
            f"{seconds[together]:7.1f} {seconds[given.together[0]] / seconds[together]:6.2f}  "
            f"{statistics.mean(losses):.3f} {statistics.mean(scores):7.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
