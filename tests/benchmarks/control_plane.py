"""What a study costs besides its trials: real Ray Tune, Optuna, MLflow and files, instant trials.

``python -m tests.benchmarks.control_plane [TRIALS]``: a search of that many (2,000) trials of
``layernorm_vs_lora`` on a host that answers at once from a formula, four trials at a time.
Milliseconds a trial are those between one trial's end and the next one's, as a mean over a hundred
trials; the parts are what of it the driver's main thread spent where. What runs beside it in other
processes and threads (clients, MLflow's writer) takes processors, so it is in the whole. The last
column is the driver's processor time, MLflow's writer included, which neighbours leave alone.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from search_spaces.declare import Budget
from search_spaces.layernorm_vs_lora import SPACE
from study import tune
from study.allowance import Allowance, Purse
from study.checkpoints import Tidy
from study.cluster import connect
from study.conductor import Conductor, Observer, Rules
from study.devices import Devices
from study.hosts import Hosts
from study.ledger import Ledger
from study.placement import Placement
from study.records import Outcome, TrialRecord, TrialSpec
from study.runs import Runs
from study.terminal import Progress
from study.tracking import Tracking
from study.ui import default_uri
from tests.study.made_up import PROTOCOL, cards, hosts_alone, loss_of

TRIALS = 2000
SHOWN = (100, 500, 1000, 2000)


class Instant:
    """A host whose trials take no time, but the first: as with real ones, none ends before all
    clients are there."""

    def __init__(self, places: int) -> None:
        self.all_here = asyncio.Barrier(places)
        self.waiting = places

    async def advance(
        self, plain: Mapping[str, Any], *, placement: Placement, heard: int, suspect: bool
    ) -> dict[str, Any]:
        """The next rung at once."""
        if self.waiting:
            self.waiting -= 1
            await self.all_here.wait()
        spec = TrialSpec.of(plain)
        costs = {"seconds": 0.0, "peak_memory_gib": 0.0}
        ahead = [stop for stop in spec.stops if stop > heard]
        result: dict[str, Any] = {"costs": costs, "done": len(ahead) <= 1}
        if ahead:
            result["rung"] = {
                "examples_seen": ahead[0],
                "validation_loss": loss_of(spec, ahead[0]),
                "train_loss": 1.0,
                "seconds": 0.0,
                "reported_at": time.time(),
            }
        if result["done"]:
            result |= {"outcome": Outcome.COMPLETE, "scores": {"validation.overall": 50.0}}
        return result

    async def leave(self, trial_id: str) -> None:
        """Nothing is kept."""

    async def alive(self) -> None:
        """It is."""


class Clock:
    """Notes when trials end, and what the driver's main thread spent on what. An observer."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.worked: list[float] = []
        """At each end: processor seconds of the driver so far, all its threads."""
        self.parts: list[defaultdict[str, float]] = []
        """After each end: seconds so far by part."""
        self.spent: defaultdict[str, float] = defaultdict(float)

    def started(self, record: TrialRecord) -> None:
        """Nothing."""

    def reported(self, record: TrialRecord) -> None:
        """Nothing."""

    def ended(self, record: TrialRecord) -> None:
        """The time."""
        self.ends.append(time.perf_counter())
        self.worked.append(time.process_time())
        self.parts.append(self.spent.copy())

    def time(self, owner: type, method: str, part: str) -> None:
        """Put what ``owner.method`` takes in the main thread down to ``part``."""
        plain: Callable[..., Any] = getattr(owner, method)

        @functools.wraps(plain)
        def timed(*arguments: Any, **named: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return plain(*arguments, **named)
            began = time.perf_counter()
            try:
                return plain(*arguments, **named)
            finally:
                self.spent[part] += time.perf_counter() - began

        setattr(owner, method, timed)


def main(arguments: list[str]) -> None:
    """Run it once and print the table."""
    trials = int(arguments[0]) if arguments else TRIALS
    clock = Clock()
    clock.time(Conductor, "next", "draw")
    clock.time(Conductor, "reported", "report")
    clock.time(Conductor, "ended", "end")
    clock.time(Hosts, "place", "hosts")
    clock.time(Hosts, "left", "hosts")
    connect(None)
    devices = Devices(hosts=1, cpus=1, gpus=0, places=4, concurrency=4, shared=False)
    with tempfile.TemporaryDirectory(prefix="studies-") as storage:
        folder = Path(storage, "instant")
        folder.mkdir()
        rules = Rules(
            space=SPACE,
            budget=Budget(trials=trials, max_examples=6400),
            slots=("vision", "fusion", "decoder"),
            seed=0,
            confirm_seeds=1,
            base="made up",
        )
        uri, artifacts = default_uri(Path(storage)), Path(storage, "artifacts")
        track = Tracking(Runs(uri, experiment="instant", artifacts=artifacts), "instant")
        track.begin("?", PROTOCOL, [])
        purse = Purse(Allowance(), devices=2, concurrency=4, scored=2.0, began=time.monotonic())
        with (
            Path(storage, "out").open("w") as out,
            Progress(Console(file=out), folder, 1, purse=purse, questions=254) as progress,
        ):
            observers: list[Observer] = [Tidy(folder), track, progress, clock]
            conductor = Conductor(rules, Ledger(folder), observers, purse)
            progress.watch(conductor)
            began = time.perf_counter()
            lanes = hosts_alone(Instant, devices.places, devices)
            lanes.start()
            tune.run(conductor, lanes)
            searched = time.perf_counter()
        track.finish("made up", {}, [], [], cards)
        flushed = time.perf_counter() - searched
        rungs = sum(len(record.rungs) for record in conductor.ledger.records.values())
    ray.shutdown()
    print(f"{len(clock.ends)} trials with {rungs} reports in {searched - began:.0f} s;", end=" ")
    print(f"MLflow had the rest {flushed:.1f} s later {track.error}")
    names = ("draw", "report", "end", "hosts")
    named = "  ".join(f"{name:>7}" for name in (*names, "Tune"))
    print(f"{'after':>8} {'ms a trial':>12}  of it {named}  processor")
    for shown in (n for n in SHOWN if n <= trials):
        whole = (clock.ends[shown - 1] - clock.ends[shown - 100]) / 99 * 1000
        worked = (clock.worked[shown - 1] - clock.worked[shown - 100]) / 99 * 1000
        before, after = clock.parts[shown - 100], clock.parts[shown - 1]
        parts = [(after[name] - before[name]) / 99 * 1000 for name in names]
        print(
            f"{shown:8} {whole:12.1f}        {'  '.join(f'{part:7.1f}' for part in parts)}"
            f"  {whole - sum(parts):7.1f}  {worked:9.1f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
