"""What it costs and saves that the questions of a batch are alike (``--questions-per-image``,
``--group-by-length``).

    python -m tests.benchmarks.batches
    python -m tests.benchmarks.batches --ways 1 length --text-only --data vqa_rad --data-root DATA

Trials of the model that ships, alike but for the order of the questions: as chance has it (1), N
about an image one after another, or such with texts of like length. All take a step in turn, so
that what else the machine does hits all; processor seconds of training, then validation loss and
score, mean over the seeds, and how far seeds are apart (standard deviation).
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import product
from typing import Any

from trainables.engine import start
from trainables.measures.common.scores import score
from trainables.recipe import Recipe
from trainables.training.frozen_features import Features
from trainables.training.regime import Regime
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload, WorkloadConfig

METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "layernorm": ({"method": "layernorm"}, 2e-2),
    "lora": ({"method": "lora", "rank": 4}, 8e-3),
}
"""Name -> settings, and a learning rate near the best that a study found."""
STILL = {"method": "frozen"}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ways", nargs="+", default=["1", "2", "4", "8", "length"])
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--data-root")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--text-only", action="store_true", help="the image encoder is frozen")
    parser.add_argument("--max-examples", type=int, default=3200)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    precision = start.resolve_precision("auto")
    workload = Workload.load(
        WorkloadConfig(data=given.data, data_root=given.data_root, image_size=given.image_size)
    )
    print(f"{workload.model.image_size} px, {precision}, {given.max_examples} examples")
    print(
        f"{'method':10} {'way':>7} {'images':>7} {'padding':>8} {'s':>7} {'ratio':>6}  "
        f"{'loss':13} {'%':>11}"
    )
    for method in METHODS:
        measure(workload, precision, method, given)


def measure(workload: Workload, precision: str, method: str, given: argparse.Namespace) -> None:
    """The lines of a method."""
    tuning, lr = METHODS[method]
    slots = dict.fromkeys(workload.model.slots, tuning)
    if given.text_only:
        slots["vision"] = STILL
    keys = list(product(given.ways, range(1, given.seeds + 1)))
    features = Features(workload, precision=precision)
    trials = {
        (way, seed): Trial(
            workload,
            TrialConfig(
                recipe=Recipe.from_plain(slots),
                lr=lr,
                seed=seed,
                max_examples=given.max_examples,
                batch_size=16,
                regime=regime(way),
            ),
            precision=precision,
            features=features,
        )
        for way, seed in keys
    }
    seconds = dict.fromkeys(given.ways, 0.0)
    images: dict[str, list[int]] = {way: [] for way in given.ways}
    padding: dict[str, list[float]] = {way: [] for way in given.ways}
    while trials[keys[0]].examples_seen < given.max_examples:
        for (way, _), trial in trials.items():
            batch = trial.batch("train", trial.upcoming())
            images[way].append(int(batch.image_B.max()) + 1)
            masks = (batch.question_mask_BQ, batch.answer_mask_BA)
            words = sum(int(mask.sum()) for mask in masks)
            padding[way].append(1 - words / sum(mask.numel() for mask in masks))
            began = time.process_time()
            trial.step()
            seconds[way] += (time.process_time() - began) / given.seeds
    asked = workload.dataset.validation
    for way in given.ways:
        same = [trial for (other, _), trial in trials.items() if other == way]
        losses = [trial.validation_loss() for trial in same]
        scores = [score(asked, trial.answers("validation"))["overall"] for trial in same]
        ratio = seconds[given.ways[0]] / seconds[way]
        print(
            f"{method:10} {way:>7} {statistics.mean(images[way]):7.1f} "
            f"{statistics.mean(padding[way]):8.0%} {seconds[way]:7.1f} {ratio:6.2f}  "
            f"{spread(losses, 3)} {spread(scores, 1)}",
            flush=True,
        )


def regime(way: str) -> Regime:
    """A number of questions an image, or ``length``."""
    if way == "length":
        return Regime(group_by_length=True)
    return Regime(questions_per_image=int(way))


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    main()
