"""What a study costs besides its trials: real Ray Tune, Optuna, MLflow and files, instant trials.

``python -m tests.benchmarks.control_plane [TRIALS]``: a search of that many (2,000) trials of
``layernorm_vs_lora``, searched as by default, on a host that answers at once from a formula, four
trials at a time.
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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from search_spaces.declare import Budget
from search_spaces.layernorm_vs_lora import SPACE
from study.config import search_methods
from study.config.spending_limit import SpendingLimit
from study.execution import ray_tune
from study.execution.cluster import connect
from study.execution.host_pool import HostPool
from study.planning.cluster_partition import ClusterPartition
from study.planning.foretold_time import QuestionCounts, TimeForecast, TimeLeft
from study.search.journal import StudyJournal
from study.search.scheduler import SearchRules, StudyScheduler
from study.search.spending import SpendingTracker
from study.storage.checkpoints import CheckpointCleaner
from study.storage.study_folder import StudyFolder
from study.tracking.mlflow_runs import MlflowRuns
from study.tracking.mlflow_store import default_uri
from study.tracking.mlflow_writer import MlflowWriter
from study.tracking.progress import Progress
from study.trials.callback import StudyCallback
from study.trials.record import Outcome, Rung, TrialRecord
from study.worker.orders import AdvanceTrial, TrialReport
from tests.study.made_up import PROTOCOL, MadeUpHost, cards, hosts_alone, loss_of

TRIALS = 2000
SHOWN = (100, 500, 1000, 2000)


class Instant(MadeUpHost):
    """A host whose trials take no time, but the first: as with real ones, none ends before all
    clients are there."""

    def __init__(self, places: int) -> None:
        self.all_here = asyncio.Barrier(places)
        self.waiting = places

    async def advance(self, order: AdvanceTrial) -> TrialReport:
        """The next rung at once."""
        if self.waiting:
            self.waiting -= 1
            await self.all_here.wait()
        spec = order.spec
        costs = {"seconds": 0.0, "peak_memory_gib": 0.0}
        ahead = [stop for stop in spec.stops if stop > order.reported_examples]
        report = TrialReport(costs=costs)
        if ahead:
            rung = Rung(
                examples_seen=ahead[0],
                validation_loss=loss_of(spec, ahead[0]),
                train_loss=1.0,
                seconds=0.0,
                reported_at=time.time(),
                costs=costs,
            )
            report = replace(report, rung=rung)
        if len(ahead) > 1:
            return report
        return replace(report, outcome=Outcome.COMPLETE, scores={"validation.overall": 50.0})


class Clock(StudyCallback):
    """Notes when trials end, and what the driver's main thread spent on what. A callback."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.worked: list[float] = []
        """At each end: processor seconds of the driver so far, all its threads."""
        self.parts: list[defaultdict[str, float]] = []
        """After each end: seconds so far by part."""
        self.spent: defaultdict[str, float] = defaultdict(float)

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
    clock.time(StudyScheduler, "next", "draw")
    clock.time(StudyScheduler, "reported", "report")
    clock.time(StudyScheduler, "ended", "end")
    clock.time(HostPool, "place", "hosts")
    clock.time(HostPool, "left", "hosts")
    connect(None)
    partition = ClusterPartition(
        hosts=1, cpus=1, gpus=0, trials_per_host=4, concurrency=4, shared=False
    )
    with tempfile.TemporaryDirectory(prefix="studies-") as storage:
        folder = Path(storage, "instant")
        folder.mkdir()
        rules = SearchRules(
            space=SPACE,
            budget=Budget(trials=trials, max_examples=6400),
            slots=("vision", "fusion", "decoder"),
            seed=0,
            confirm_seeds=1,
            allocate="tuned",
            search=search_methods.SEARCH,
            stop=search_methods.STOP,
            base="made up",
        )
        uri, artifacts = default_uri(Path(storage)), Path(storage, "artifacts")
        track = MlflowWriter(MlflowRuns(uri, experiment="instant", artifacts=artifacts), "instant")
        track.begin(SPACE, PROTOCOL, [])
        spending = SpendingTracker(
            SpendingLimit(), devices=2, concurrency=4, scored=2.0, began=time.monotonic()
        )
        forecast = TimeForecast(
            steps=TimeForecast.unmeasured(SPACE.arms),
            measured=False,
            budget=rules.budget,
            trials=trials,
            stop=rules.stop,
            seeds=rules.confirm_seeds,
            untuned=0,
            questions=QuestionCounts(train=2542, validation=254, test=451, ood=0),
            devices=1,
        )
        left = TimeLeft(forecast)
        with (
            Path(storage, "out").open("w") as out,
            Progress(
                Console(file=out), folder, spending=spending, time_left=left, questions=254
            ) as progress,
        ):
            callbacks: list[StudyCallback] = [
                CheckpointCleaner(StudyFolder.from_path(folder)),
                track,
                progress,
                clock,
            ]
            scheduler = StudyScheduler(rules, StudyJournal(folder), callbacks, spending)
            progress.watch(scheduler)
            began = time.perf_counter()
            dispatcher = hosts_alone(Instant, partition.trials_per_host, partition)
            dispatcher.start()
            ray_tune.run(scheduler, dispatcher)
            searched = time.perf_counter()
        track.finish("made up", "models", "", {}, [], [], cards)
        flushed = time.perf_counter() - searched
        rungs = sum(len(record.rungs) for record in scheduler.journal.records.values())
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
