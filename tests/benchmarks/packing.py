"""What it gives that several trials share each pass over the frozen base.

    python -m tests.benchmarks.packing                              the model that ships
    python -m tests.benchmarks.packing --device cuda --shape miss   MISS: 361M parameters, 480 px

Trials x examples a second of 1, 2, 4, 8 and 16 trials in one lane, each mix of methods for itself:
packed, and the same trials with each in a pass of its own. Both take a step in turn, so that what
else the machine does hits both; the medians of the steps are compared: on a CPU of the processor
time, which neighbours leave alone. The image encoder is frozen and its features are on disk, but
with ``--everywhere``, where each method is in every slot. *Operations* are those of a step of all
trials, views and mere allocations left out: on a GPU about as many kernels, whose launches bind a
small model. On CUDA the peak of allocated memory is told too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks.shapes import miss
from trainables import engine
from trainables.lane import Lane
from trainables.memory import GIB
from trainables.recipe import Recipe
from trainables.trial import TrialConfig
from trainables.workload import Workload, WorkloadConfig

MIXES: dict[str, list[dict[str, Any]]] = {
    "layernorm": [{"method": "layernorm"}],
    "lora": [{"method": "lora", "rank": rank} for rank in (4, 8, 16, 32)],
    "ptv2": [{"method": "ptv2"}],
    "mixed": [
        {"method": "layernorm"},
        {"method": "lora", "rank": 8},
        {"method": "ia3"},
        {"method": "bitfit"},
    ],
}
STILL = {"vision": {"method": "frozen"}}


def main() -> None:
    """Print a table for each mix."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=("tiny", "miss"), default="tiny")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=64, help="of each split, for miss")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--everywhere", action="store_true", help="nothing is frozen")
    parser.add_argument("--mixes", nargs="+", choices=MIXES, default=list(MIXES))
    given = parser.parse_args()
    assert given.device == "cpu" or torch.cuda.is_available(), "there is no CUDA device"
    precision = engine.resolve_precision(given.precision)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        workload = Workload.load(WorkloadConfig()) if given.shape == "tiny" else miss(given.images)
        print(
            f"{given.shape}, {precision} on {workload.device}, {torch.get_num_threads()} threads, "
            f"batches of {given.batch_size}; medians of {given.steps} steps"
        )
        for mix in given.mixes:
            print(
                f"\n{mix:14} packed ex/s  apart ex/s  gain   operations, apart, ratio"
                + "  peak GiB" * torch.cuda.is_available()
            )
            for trials in given.trials:
                measure(workload, precision, mix, trials, given)


def measure(workload: Workload, precision: str, mix: str, trials: int, given: Any) -> None:
    """One line."""
    lanes = [
        Lane(workload, precision=precision, places=trials, at_once=at_once)
        for at_once in (trials, 1)
    ]
    for lane in lanes:
        for n in range(trials):
            slots = dict.fromkeys(workload.model.slots, MIXES[mix][n % len(MIXES[mix])])
            lane.enter(
                str(n),
                TrialConfig(
                    recipe=Recipe.of(slots if given.everywhere else slots | STILL),
                    lr=1e-3,
                    seed=n,
                    max_examples=10**6,
                    batch_size=given.batch_size,
                ),
            )
            lane.train_to(str(n), 10**6)
        assert not lane.alone, lane.alone
    seconds: list[list[float]] = [[], []]
    peaks = [0.0, 0.0]
    cuda = torch.cuda.is_available()
    clock = time.perf_counter if cuda else time.process_time
    for _ in range(given.steps + 1):
        for side, lane in enumerate(lanes):
            if cuda:
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            started = clock()
            lane.step()
            if cuda:
                torch.cuda.synchronize()
                peaks[side] = torch.cuda.max_memory_allocated() / GIB
            seconds[side].append(clock() - started)
    packed, apart = (trials * given.batch_size / statistics.median(s[1:]) for s in seconds)
    peak = f"{peaks[0]:10.2f}" if torch.cuda.is_available() else ""
    operations = [count(lane) for lane in lanes]
    ratio = operations[1] / operations[0]
    print(
        f"{trials:7} trials  {packed:10.0f}  {apart:10.0f}  {packed / apart:4.2f}  "
        f"{operations[0]:11}  {operations[1]:5}  {ratio:5.1f}{peak}",
        flush=True,
    )


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Counts those that compute something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.count: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        allocates = "empty" in func.__name__
        self.count += not (func.is_view or allocates)
        return func(*args, **(kwargs or {}))


def count(lane: Lane) -> int:
    """Operations of a step."""
    operations = Operations()
    with operations:
        lane.step()
    return operations.count


if __name__ == "__main__":
    main()
