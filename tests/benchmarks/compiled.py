"""Whether ``torch.compile`` would pay: a training step as it is, and one of a compiled network.

``python -m tests.benchmarks.compiled [--steps 20] [--precision auto]``: the model that ships,
methods in every slot. Both trials take a step in turn, so that what else the machine does hits
both; medians of the processor time on a CPU. What compiling takes is what the first steps take
longer: a trial of another method, or whose lengths are new, pays it again. Told last: after how
many examples it would have paid for itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from trainables.engine import start
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload, WorkloadConfig

BATCH = 16
METHODS: dict[str, dict[str, Any]] = {
    "layernorm": {"method": "layernorm"},
    "lora": {"method": "lora", "rank": 8},
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="auto")
    given = parser.parse_args()
    precision = start.resolve_precision(given.precision)
    workload = Workload.load(WorkloadConfig())
    print(f"tiny, {precision} on {workload.device}, batches of {BATCH}, {given.steps} steps")
    print("method      plain ms  compiled ms  gain  compiling s  pays after")
    for name, tuning in METHODS.items():
        measure(workload, precision, name, tuning, given.steps)


def measure(
    workload: Workload, precision: str, name: str, tuning: dict[str, Any], steps: int
) -> None:
    """One line."""
    config = TrialConfig(
        recipe=Recipe.from_plain(dict.fromkeys(workload.model.slots, tuning)),
        lr=1e-3,
        seed=0,
        max_examples=10**6,
        batch_size=BATCH,
    )
    plain, compiled = (Trial(workload, config, precision=precision) for _ in range(2))
    for path in workload.model.slots.values():
        compiled.losses.network.get_submodule(path).compile(dynamic=True)
    clock = time.perf_counter if workload.device.type == "cuda" else time.process_time
    seconds: dict[Trial, list[float]] = {plain: [], compiled: []}
    began, losses = time.perf_counter(), []
    for step in range(2 * steps):
        if step == steps:  # by then it has met the lengths of questions that there are
            compiling = time.perf_counter() - began
            seconds = {plain: [], compiled: []}
        for trial, taken in seconds.items():
            started = clock()
            losses.append(trial.step())
            if workload.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(clock() - started)
    assert abs(losses[-1] - losses[-2]) < 0.1, "it is another computation"
    one, other = (statistics.median(taken) for taken in seconds.values())
    compiling -= steps * (one + other)
    examples = compiling / (one - other) * BATCH if one > other else float("inf")
    print(
        f"{name:10} {1e3 * one:9.0f} {1e3 * other:12.0f} {one / other:5.2f} {compiling:12.0f}  "
        f"{examples:,.0f} examples",
        flush=True,
    )


if __name__ == "__main__":
    main()
