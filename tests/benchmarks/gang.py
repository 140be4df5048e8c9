"""What it takes to divide a trial among workers, and what DeepSpeed takes besides plain PyTorch.

    python -m tests.benchmarks.gang [--steps 10] [--workers 1 2 4] [--kinds off 0 1 2 3]

The model that ships, in fp32, batches of 32, gloo, one thread a worker. For each recipe every kind
of engine trains on every number of workers. *Speed* is against plain PyTorch on one worker, and
*efficiency* that speed over the workers that have a processor of their own. *Processor* is
processor time of all workers against the same: what dividing costs, however many processors there
are. Medians over steps; the slowest worker counts, since all wait for it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import distributed

from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload, WorkloadConfig

BATCH = 32
WARM_UP = 2
RECIPES = ("lora", "full")
Took = dict[tuple[str, str], tuple[float, float]]
"""Recipe and kind -> wall and processor seconds of a step."""


def worker(rank: int, count: int, kinds: list[str], steps: int, store: str, told: Any) -> None:
    """One rank: trains everything, and tells what its steps took."""
    torch.set_num_threads(1)
    if count > 1:
        distributed.init_process_group(
            "gloo",
            store=distributed.FileStore(store, count),  # type: ignore[attr-defined]  # torch's
            rank=rank,
            world_size=count,
        )
    workload, took = Workload.load(WorkloadConfig()), Took()
    for method in RECIPES:
        recipe = Recipe.from_plain({slot: {"method": method} for slot in workload.model.slots})
        config = TrialConfig(recipe=recipe, lr=1e-4, seed=0, max_examples=10**6, batch_size=BATCH)
        for kind in kinds:
            trial = Trial(workload, config, deepspeed=kind)
            found = []
            for _ in range(WARM_UP + steps):
                wall, processor = time.perf_counter(), time.process_time()
                trial.step()
                found.append((time.perf_counter() - wall, time.process_time() - processor))
            walls, processors = zip(*found[WARM_UP:], strict=True)
            took[method, kind] = statistics.median(walls), statistics.median(processors)
            del trial
    told.put(took)
    if count > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def on(count: int, kinds: list[str], steps: int) -> Took:
    """What a step takes on ``count`` workers: the slowest one's wall, all ones' processor time."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        told, store = spawn.SimpleQueue(), str(Path(folder, "store"))
        given = [(rank, count, kinds, steps, store, told) for rank in range(count)]
        running = [spawn.Process(target=worker, args=arguments) for arguments in given]
        for process in running:
            process.start()
        for process in running:
            process.join()
            assert process.exitcode == 0
        found: list[Took] = [told.get() for _ in running]
    return {
        key: (max(took[key][0] for took in found), sum(took[key][1] for took in found))
        for key in found[0]
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--kinds", nargs="+", default=["off", "0", "1", "2", "3"])
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    took = {count: on(count, given.kinds, given.steps) for count in given.workers}
    columns = ("recipe", "engine", "workers", "ms a step", "speed", "efficiency", "processor")
    table = Table(*columns, box=None, pad_edge=False)
    first = given.workers[0], given.kinds[0]
    for method in RECIPES:
        wall, processor = took[first[0]][method, first[1]]
        for kind in given.kinds:
            for count in given.workers:
                own, all_ = took[count][method, kind]
                speed = wall / own
                table.add_row(
                    *(method, "plain" if kind == "off" else f"ZeRO {kind}", str(count)),
                    *(f"{own * 1000:.0f}", f"{speed:.2f}"),
                    f"{speed / min(count, os.cpu_count() or 1):.2f}",
                    f"{all_ / processor:.2f}",
                )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
