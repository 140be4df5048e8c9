"""How near a training step comes to what the processor can compute.

``python -m tests.benchmarks.step_limit [--image-size 224] [--precision bf16] [--space FILE]``: the
arithmetic of a step of each arm at the middle of its ranges, as ``torch.utils.flop_counter`` counts
it, over the processor time that the step takes on one thread; and that in parts of what a product
of two square matrices of the same type does in a second there. Medians of steps that the arms and
the product take in turn, so that what else the machine does hits all. ``study_cost`` prints it too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from study.config import spaces
from study.planning import workload_profile
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload, WorkloadConfig

WIDTH = 1024
"""Rows and columns of the product's matrices."""
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WARM = 5
"""Steps before the first one that counts."""


def seconds(do: Callable[[], object]) -> float:
    """Processor time of this thread that something takes."""
    began = time.thread_time()
    do()
    return time.thread_time() - began


def main(arguments: list[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="layernorm_vs_lora")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--precision", default="fp32", choices=TYPES)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    workload = Workload.load(WorkloadConfig(image_size=given.image_size))
    space = spaces.load(given.space)
    trials = {}
    for name, arm in space.arms.items():
        config = TrialConfig(
            recipe=workload_profile.typical(arm, workload.model),
            lr=1e-4,
            seed=0,
            max_examples=10**6,
            batch_size=space.budget.batch_size,
        )
        trials[name] = Trial(workload, config, precision=given.precision)
    matrix = torch.randn(WIDTH, WIDTH).to(TYPES[given.precision])
    took: dict[str, list[float]] = {name: [] for name in trials}
    product: list[float] = []
    for step in range(WARM + given.steps):
        for name, trial in trials.items():
            one = seconds(trial.step)
            if step >= WARM:
                took[name].append(one)
        product.append(seconds(lambda: matrix @ matrix))
    able = 2 * WIDTH**3 / statistics.median(product)
    print(f"a product of {WIDTH} x {WIDTH} in {given.precision}: {able / 1e9:.0f} GFLOP a second")
    print(f"{'a step of':14} {'GFLOP':>6} {'ms':>6} {'of the product':>15}")
    for name, trial in trials.items():
        with FlopCounterMode(display=False) as counter:
            trial.step()
        arithmetic, median = counter.get_total_flops(), statistics.median(took[name])
        print(
            f"{name:14} {arithmetic / 1e9:6.2f} {1e3 * median:6.1f} "
            f"{arithmetic / median / able:15.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
