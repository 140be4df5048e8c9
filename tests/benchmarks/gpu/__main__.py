"""Measures a GPU, or runs the same with small shapes on a CPU or a simulated device.

    python -m tests.benchmarks.gpu                              all parts, 8 minutes
    python -m tests.benchmarks.gpu --minutes 30 --part 3        one part
    python -m tests.benchmarks.gpu --device cpu --minutes 4     small shapes
    python -m tests.simulated_cuda -m tests.benchmarks.gpu      small shapes

From the root of a copy of the repository, with torch, transformers, peft, safetensors, numpy and
pillow; what needs other packages is left out by name where they are not there. Each result is
printed and written to ``--out`` as it comes, beside the goals. A part has its share of the minutes,
and what earlier parts leave of theirs. A later call with the same ``--out`` goes on: it measures
what is not in the file.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tests.benchmarks.gpu.machine import Machine, Part
    from tests.benchmarks.gpu.results import Results

PARTS = {1: "losses", 2: "memory", 3: "packed", 4: "features", 5: "study"}
ERROR_LETTERS = 300


class OutOfTime(BaseException):
    """A part's time is over. No code that handles errors of a trial takes it for one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet; the exit code is 1 if a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--part", type=int, choices=PARTS, nargs="+", default=[*PARTS])
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark.jsonl"))
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--small", action="store_true", help="small shapes, as on a CPU")
    given = parser.parse_args(arguments)
    if not 0 < given.minutes < float("inf"):
        parser.error(f"--minutes must be more than 0, not {given.minutes:g}")
    if given.device == "cpu":  # before torch looks
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "STUDY_DEVICE": "cpu"}
    from tests.benchmarks.gpu.machine import Machine, versions
    from tests.benchmarks.gpu.results import Results

    machine = Machine.here(small=given.small)
    results = Results(given.out, machine.label)
    results.begin(versions())
    print(f"{machine.label}; {machine.gib:.0f} GiB; {machine.precision} where not said otherwise")
    print(", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    if machine.device.type == "cpu":
        print("There is no accelerator: what is compared with the CPU is the CPU itself.")
    with _cache():
        return _run(machine, results, sorted(set(given.part)), 60 * given.minutes)


def _run(machine: Machine, results: Results, numbers: Sequence[int], seconds: float) -> int:
    """Take each part in its time, then say what was found."""
    parts = {n: cast("Part", import_module(f"tests.benchmarks.gpu.{PARTS[n]}")) for n in numbers}
    end, failed = time.monotonic() + seconds, 0
    for number, part in parts.items():
        weights = sum(other.WEIGHT for n, other in parts.items() if n >= number)
        has = max(end - time.monotonic(), 0.0) * part.WEIGHT / weights
        print(
            f"\npart {number}: {part.TITLE}; at most {has:.0f} s\n  goal: {part.GOAL}", flush=True
        )
        failed += _take(number, part, machine, results, time.monotonic() + has)
    print()
    for number, part in parts.items():
        every = part.measurements(machine)
        taken = results.taken(number)
        left = sum(one.name not in taken and not one.lacks for one in every)
        more = f"; {left} of {len(every)} left for the next run" if left else ""
        print(f"part {number}: {part.verdict(taken).shown}{more}\n  goal: {part.GOAL}", flush=True)
    return 1 if failed else 0


def _take(number: int, part: Part, machine: Machine, results: Results, deadline: float) -> int:
    """Take what a part has not taken yet, until its time is over; return how many failed."""
    failed = 0
    every = part.measurements(machine)
    for place, one in enumerate(every, start=1):
        shown = f"  {place}/{len(every)} {one.name}: "
        if one.name in results.taken(number):
            continue
        if one.lacks:
            print(f"{shown}left out: {one.lacks} is not installed", flush=True)
            continue
        if time.monotonic() >= deadline:
            print("  the time of this part is over", flush=True)
            break
        began = time.monotonic()
        try:
            with _alarm(deadline - began):
                result = one.take()
        except OutOfTime:
            print(f"{shown}cut off, as the time of this part is over", flush=True)
            break
        except Exception as error:  # whatever a device does, the next one is measured
            failed += 1
            told = (str(error).strip() or type(error).__name__).splitlines()[0][:ERROR_LETTERS]
            results.fail(number, one.name, told)
            print(f"{shown}failed: {type(error).__name__}: {told}", flush=True)
            continue
        took = time.monotonic() - began
        results.add(number, one.name, took, result)
        told = f"left out: {result['left_out']}" if "left_out" in result else part.line(result)
        print(f"{shown}{told} ({took:.1f} s)", flush=True)
    return failed


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise ``OutOfTime`` in the block when the seconds are over."""

    def ring(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _cache() -> Iterator[None]:
    """Let decoded images and features lie in a folder that goes with this run."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before


if __name__ == "__main__":
    sys.exit(main())
