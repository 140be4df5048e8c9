"""Part 3: eight trials that share a pass, against one."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any

from tests.benchmarks import packing, shapes
from tests.benchmarks.gpu.machine import NOTHING, Machine, Measurement, Result, Verdict
from trainables.devices import accelerator
from trainables.memory.measure import GIB, measure_growth, release_cached
from trainables.models.common.quantisation import BaseBits

TITLE = "eight trials that share a pass"
TRIALS = 8
FASTER, LARGER = 4.0, 1.5
GOAL = f"{TRIALS} trials at {FASTER:g} times the throughput and {LARGER:g} times the memory of one"
WEIGHT = 6
STEPS = 8
SHAPES: tuple[tuple[str, int | None, int], ...] = (
    ("miss", None, 8),
    ("llava-1b", None, 4),
    ("llava-7b", None, 2),
    ("llava-7b", 4, 2),
)
"""Shape, bits of the base, questions of a trial's batch. What encodes the images is frozen."""
SMALL: tuple[tuple[str, int | None, int], ...] = (("tiny", None, 8), ("tiny", 4, 8))
MIXES = ("lora", "layernorm")


def measurements(machine: Machine) -> list[Measurement]:
    """Each shape with each mix of methods."""
    return [
        Measurement(
            name=f"{shape}{f' in {bits} bits' if bits else ''} {mix}, batches of {questions}",
            take=partial(compare, machine, shape, bits, questions, mix),
            needs=("bitsandbytes",) if bits else (),
        )
        for shape, bits, questions in (SMALL if machine.small else SHAPES)
        for mix in MIXES
    ]


def line(result: Result) -> str:
    """Throughput and memory of both."""
    one, packed = result["one"], result["packed"]
    return (
        f"{packed['rate']:.4g} examples/s against {one['rate']:.4g}: {result['faster']:.2f} times; "
        f"{packed['gib']:.2f} GiB against {one['gib']:.2f}: {result['larger']:.2f} times"
    ) + (f"; {packed['passes']} passes, as memory ran out" if packed["passes"] > 1 else "")


def verdict(results: Mapping[str, Result]) -> Verdict:
    """Which meet the goal."""
    found = {name: r for name, r in results.items() if "faster" in r}
    if not found:
        return NOTHING
    met = sum(r["faster"] >= FASTER and r["larger"] <= LARGER for r in found.values())
    faster, larger = (sorted(r[key] for r in found.values()) for key in ("faster", "larger"))
    return Verdict(
        met == len(found),
        f"{met} of {len(found)} meet it; throughput {faster[0]:.2f} to {faster[-1]:.2f} times, "
        f"memory {larger[0]:.2f} to {larger[-1]:.2f} times",
    )


def compare(
    machine: Machine, shape: str, bits: int | None, questions: int, mix: str
) -> Mapping[str, Any]:
    """Examples a second and GiB at the peak of one trial and of eight that share a pass."""
    bench = _bench(machine, shape, bits)
    bench.given.batch_size = questions
    one, packed = (measure(bench, mix, trials) for trials in (1, TRIALS))
    return {
        "one": one,
        "packed": packed,
        "faster": packed["rate"] / one["rate"],
        "larger": packed["gib"] / one["gib"],
    }


def measure(bench: packing.Bench, mix: str, trials: int) -> dict[str, Any]:
    """Median throughput of some steps of trials that share a pass, their peak, and the number of
    passes that a step took."""
    release_cached()
    with measure_growth() as grown:
        group = bench.group(mix, trials, trials)
        for _ in range(2):  # in the second the optimizer's state is there
            group.step()
    seconds = []
    for _ in range(STEPS):
        accelerator.synchronise()
        began = bench.clock()
        group.step()
        accelerator.synchronise()
        seconds.append(bench.clock() - began)
    return {
        "rate": trials * bench.given.batch_size / statistics.median(seconds),
        "gib": (bench.base + grown.size) / GIB,
        "passes": -(-trials // group._trials_per_pass),
    }


_benches: dict[tuple[str, int | None], packing.Bench] = {}


def _bench(machine: Machine, shape: str, bits: int | None) -> packing.Bench:
    """The model of a shape, the only one that is in memory."""
    if (shape, bits) not in _benches:
        _benches.clear()
        release_cached()
        workload = shapes.workload(
            shape,
            images=2 if machine.small else 24,
            bits=None if bits is None else BaseBits(bits=bits),
        )
        precision = "bf16" if shape in shapes.DECODERS else machine.precision
        given = argparse.Namespace(batch_size=1, everywhere=False)
        _benches[shape, bits] = packing.Bench(workload, precision, given)
    return _benches[shape, bits]
