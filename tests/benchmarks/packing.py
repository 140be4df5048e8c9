"""What it gives that several trials share each pass over the frozen base.

    python -m tests.benchmarks.packing                           the model that ships
    python -m tests.benchmarks.packing --shape miss              MISS: 361M parameters, 480 px
    python -m tests.benchmarks.packing --shape llava-7b          or 1b: a large decoder, in bf16
    python -m tests.benchmarks.packing --base-bits 4             on a base in four bits

Trials x examples a second of 1, 2, 4, 8 and 16 trials in a trial group, each mix of methods for
itself: packed, and the same trials with each in a pass of its own; on an accelerator if there
is one. Both take a step in turn, so that what else the machine does hits both; the medians of the
steps are compared: on a CPU of the processor time, which neighbours leave alone. What encodes the
images is frozen and its features are on disk, but with ``--everywhere``, where each method is in
every slot. *Operations* are those of a step of all trials, without views, mere allocations and the
profiler's marks: on a GPU about as many kernels, whose launches bind a small model. *GiB* is what
tensors take at the peak of a packed step, base and optimizers included; its ratio is to that of the
fewest trials.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks import shapes
from trainables.devices import accelerator
from trainables.engine import start
from trainables.memory import fake_weights, measure
from trainables.memory.measure import measure_growth, release_cached
from trainables.model_contract import Model
from trainables.models.common.quantisation import BaseBits
from trainables.packing.trial_group import TrialGroup
from trainables.recipe import Recipe
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

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
    "ia3": [{"method": "ia3"}],
    "bitfit": [{"method": "bitfit"}],
    "attention": [{"method": "attention"}],
}
DEFAULT_REGIME = ("layernorm", "lora", "ptv2", "mixed")
WITHOUT_BIAS = {"method": "ia3"}
"""In place of ``bitfit`` in a decoder that has no bias."""


def main() -> None:
    """Print a table for each mix."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=shapes.SHAPES, default="tiny")
    parser.add_argument("--image-size", type=int, help="pixels; as the shape has it")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=64, help="of each split, but for tiny")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--base-bits", type=int, help="4: a base in four bits")
    parser.add_argument("--everywhere", action="store_true", help="nothing is frozen")
    parser.add_argument("--operators", type=int, default=0, help="print so many most frequent ones")
    parser.add_argument("--mixes", nargs="+", choices=MIXES, default=DEFAULT_REGIME)
    given = parser.parse_args()
    precision = start.resolve_precision(given.precision)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        bits = None if given.base_bits is None else BaseBits(bits=given.base_bits)
        workload = shapes.workload(
            given.shape, images=given.images, image_size=given.image_size, bits=bits
        )
        print(
            f"{given.shape}, {workload.model.image_size} px, {precision} on {workload.device}, "
            f"{f'base in {bits.bits} bits, ' if bits else ''}"
            f"{torch.get_num_threads()} threads, batches of {given.batch_size}; "
            f"medians of {given.steps} steps"
        )
        bench = Bench(workload, precision, given)
        for mix in given.mixes:
            print(
                f"\n{mix:14} packed ex/s  apart ex/s  gain   operations, apart, ratio   "
                "peak GiB, ratio",
                flush=True,
            )
            alone = None
            for trials in given.trials:
                gib = bench.measure(mix, trials, alone)
                alone = alone or gib


class Bench:
    """Trial groups of one model."""

    def __init__(self, workload: Workload, precision: str, given: Any) -> None:
        self.workload, self.precision, self.given = workload, precision, given
        self.base = sum(fake_weights.storage_bytes(workload.model.network).values())
        self.clock = time.perf_counter if accelerator.accelerated() else time.process_time
        self.group("layernorm", 1, 1)  # from now on features are on disk

    def group(self, mix: str, trials: int, trials_per_pass: int) -> TrialGroup:
        """A trial group with ``trials`` trials of a mix, on their way."""
        group = TrialGroup(
            self.workload, precision=self.precision, places=trials, trials_per_pass=trials_per_pass
        )
        for n in range(trials):
            group.enter(
                str(n),
                TrialConfig(
                    recipe=self.recipe(MIXES[mix][n % len(MIXES[mix])]),
                    lr=1e-3,
                    seed=n,
                    max_examples=10**6,
                    batch_size=self.given.batch_size,
                ),
            )
            group.train_to(str(n), 10**6)
        assert not group.alone_reasons, group.alone_reasons
        return group

    def recipe(self, tuning: dict[str, Any]) -> Recipe:
        """A method in every slot that is not frozen."""
        model = self.workload.model
        if tuning["method"] == "bitfit" and not _has_bias(model):
            tuning = WITHOUT_BIAS
        of_images = {slot for s in model.stages if s.per == "image" for slot in s.slots}
        frozen = set() if self.given.everywhere else of_images
        there = {**tuning, "everywhere": True}
        return Recipe.from_plain({slot: there for slot in model.slots if slot not in frozen})

    def measure(self, mix: str, trials: int, alone: float | None) -> float:
        """Print a line. ``alone``: the peak (GiB) of the fewest trials, which are these if None.

        Returns:
            the peak of these.
        """
        release_cached()  # or what goes meanwhile would be subtracted
        with measure_growth() as grown:
            packed = self.group(mix, trials, trials)
            packed.step()
        gib = (self.base + grown.size) / measure.GIB
        apart = self.group(mix, trials, 1)
        apart.step()
        seconds: dict[TrialGroup, list[float]] = {packed: [], apart: []}
        for _ in range(self.given.steps):
            for group, taken in seconds.items():
                started = self.clock()
                group.step()
                accelerator.synchronise()
                taken.append(self.clock() - started)
        examples = trials * self.given.batch_size
        rates = [examples / statistics.median(taken) for taken in seconds.values()]
        counts = [count(group) for group in seconds]
        operations = [each.total() for each in counts]
        print(
            f"{trials:7} trials  {rates[0]:11.4g} {rates[1]:11.4g}  {rates[0] / rates[1]:4.2f}  "
            f"{operations[0]:11}  {operations[1]:5}  {operations[1] / operations[0]:5.1f}   "
            f"{gib:8.2f}  {gib / (alone or gib):5.2f}",
            flush=True,
        )
        for name, each in zip(("packed", "apart"), counts, strict=True):
            if most := each.most_common(self.given.operators):
                print(f"        {name}: {', '.join(f'{op} {n}' for op, n in most)}", flush=True)
        return gib


def _has_bias(model: Model) -> bool:
    """In its last slot, which is trained in any case."""
    last = model.network.get_submodule([*model.slots.values()][-1])
    return any(name.endswith("bias") for name, _ in last.named_parameters())


class Operations(TorchDispatchMode):
    """Counts those that compute something, by operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.counts = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = func.is_view or func.overloadpacket.__name__ == "_unsafe_view"
        allocates, marks = "empty" in func.__name__, func.namespace == "profiler"
        if not (views or allocates or marks):
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def count(group: TrialGroup) -> Counter[str]:
    """Operations of a step, by operator."""
    operations = Operations()
    with operations:
        group.step()
    return operations.counts


if __name__ == "__main__":
    main()
