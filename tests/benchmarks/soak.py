"""What grows with the number of trials, and what is left behind.

``python -m tests.benchmarks.soak [REAL [INSTANT [TUNED]]]``: a study of that many (200) short real
trials, one at a time, of which the memory of the driver, of the process that loads the model, of
hosts and of clients is sampled, with their open files and their number; then a study of that many
(5,000) instant ones without Ray, for the journal and the report; then one of that many (240)
instant ones through Ray Tune, for the driver's memory alone. A number of 0 leaves a study out.

Memory is each process's own (USS), and its slope a line through the samples of the second half of
the search, since the first trials of each arm bring code and caches that stay, and the end brings
the code that makes the answer.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import ray

from study.analysis import results
from study.execution import ray_tune
from study.planning.cluster_partition import ClusterPartition
from study.reporting import page
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage.study_folder import JOURNAL, StudyFolder
from study.trials.callback import StudyCallback
from study.trials.record import TrialRecord
from study.worker.orders import AdvanceTrial, TrialReport
from tests.study.command_line import REPOSITORY, command
from tests.study.finished import PROTOCOL, SPACE, dataset, finish
from tests.study.made_up import MadeUpHost, advanced, hosts_alone, rules
from tests.trainables.data.small import jsonl

REAL, INSTANT, TUNED = 200, 5000, 240
SAMPLE_SECONDS = 1.0
ROLES = {
    "study.launch": "driver",
    "study.worker import zygote": "zygote",
    "ray::HostActor": "host's actor",
    "ray::ResourceTrainable": "client",
    "gcs/gcs_server": "GCS",
    "raylet/raylet": "raylet",
}
"""Words of a command line -> what the process is."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A process at a moment."""

    trials: int
    """Number of trials that had ended."""
    role: str
    mib: float
    files: int


def samples(study: psutil.Process, log: Path) -> Iterator[Sample]:
    """The processes of a study now. Of a forked process the parent has the same command line."""
    ended = sum(log.read_text().count(word) for word in (" complete ", " pruned "))
    for process in [study, *study.children(recursive=True)]:
        with suppress(psutil.Error):
            words = " ".join(process.cmdline())
            role = next((role for part, role in ROLES.items() if part in words), "")
            if role == "zygote" and process.ppid() != study.pid:
                role = "host"
            if role:
                mib = process.memory_full_info().uss / 2**20
                yield Sample(trials=ended, role=role, mib=mib, files=process.num_fds())


def real(trials: int) -> None:
    """Run a study and print what its processes took."""
    shared = set(Path("/dev/shm").iterdir())
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        storage, found = Path(folder), list[Sample]()
        (storage / "data").mkdir()
        jsonl.write(storage / "data")
        data = ("--data", "jsonl", "--split", "by_image", "--data-root", str(storage / "data"))
        asked = ("--trials", str(trials), "--max-examples", "32", "--seeds", "1", "--name", "soak")
        ways = ("--search", "random", "--allocate", "equal", "--stop", "none", "--concurrency", "1")
        log, began = storage / "soak" / "study.log", time.monotonic()
        with subprocess.Popen(
            command(storage, "--space", "smoke", *data, *asked, *ways),
            stdout=subprocess.DEVNULL,
            cwd=REPOSITORY,
        ) as study:
            process = psutil.Process(study.pid)
            started: set[psutil.Process] = set()
            while study.poll() is None:
                with suppress(psutil.Error):
                    started |= set(process.children(recursive=True))
                    if log.exists():
                        found += samples(process, log)
                time.sleep(SAMPLE_SECONDS)
        print(f"{trials} trials: exit code {study.returncode}, {time.monotonic() - began:.0f} s")
        by_role = defaultdict[str, list[Sample]](list)
        for sample in found:
            by_role[sample.role].append(sample)
        for role, each in by_role.items():
            half = [s for s in each if trials / 2 <= s.trials < trials] or each
            kib = 1024 * _slope([s.trials for s in half], [s.mib for s in half])
            files = f"{half[0].files} to {half[-1].files} files"
            quarters = defaultdict[int, list[float]](list)
            for s in each:
                quarters[min(4 * s.trials // trials, 3)].append(s.mib)
            mib = ", ".join(f"{np.median(quarters[number]):.1f}" for number in sorted(quarters))
            print(f"{role:14} {kib:+8.1f} KiB a trial, {files}; medians of quarters: {mib} MiB")
        size = sum(f.stat().st_size for f in (storage / "soak").rglob("*") if f.is_file())
        database = (storage / "mlflow.db").stat().st_size
        print(
            f"storage {size / trials / 1024:.1f} KiB a trial, MLflow's database {database:,} bytes"
        )
        time.sleep(2)
        left = [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        print(
            f"left: {len(left)} processes, {len(set(Path('/dev/shm').iterdir()) - shared)} in shm"
        )


def _slope(x: list[int], y: list[float]) -> float:
    return float(np.polyfit(x, y, 1)[0]) if len(set(x)) > 1 else 0.0


def instant(trials: int) -> None:
    """Run a made-up study, and print the size of its journal and its report."""
    driver, splits = psutil.Process(), {"test": dataset()}
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder, began = Path(name), time.monotonic()
        before = driver.memory_full_info().uss
        asked = replace(rules(space=SPACE, trials=trials, allocate="equal"), search="random")
        scheduler = StudyScheduler(asked, StudyJournal(folder))
        finish(scheduler, folder, splits)
        grown = driver.memory_full_info().uss - before
        took, bytes_ = time.monotonic() - began, (folder / JOURNAL).stat().st_size
        each = f"journal {bytes_ / trials / 1024:.1f}, driver {grown / trials / 1024:+.1f}"
        print(f"{trials} instant trials: {1000 * took / trials:.1f} ms each; KiB a trial: {each}")
        began = time.monotonic()
        StudyJournal(folder)
        print(f"the journal is read in {time.monotonic() - began:.1f} s")
        ended = results.FinishedTrials(
            space=SPACE,
            objectives=(),
            records=[*scheduler.journal.records.values()],
            best=scheduler.best(),
            gains=None,
        )
        began = time.monotonic()
        found = results.collect(
            "one", StudyFolder.from_path(folder), ended, dataset(), {}, PROTOCOL, margin=1.0
        )
        page.write(folder, found)
        took = time.monotonic() - began
        report = (folder / "report.html").stat().st_size
        print(f"results and report in {took:.1f} s; report.html {report / 1e6:.2f} MB")


class Instant(MadeUpHost):
    """A host whose trials reach each rung at once."""

    def __init__(self, config: None) -> None:
        pass

    async def advance(self, order: AdvanceTrial) -> TrialReport:
        return advanced(order.spec, order.reported_examples)


class Watch(StudyCallback):
    """Samples this process whenever twenty more trials have ended."""

    def __init__(self) -> None:
        self.ended_trials = 0
        self.kib: dict[int, float] = {}

    def ended(self, record: TrialRecord) -> None:
        self.ended_trials += 1
        if self.ended_trials % 20 == 0:
            gc.collect()
            self.kib[self.ended_trials] = psutil.Process().memory_full_info().uss / 1024


def tuned(trials: int) -> None:
    """Run a made-up study through Ray Tune, and print what its driver's memory grows by."""
    partition = ClusterPartition(
        hosts=1, cpus=1, gpus=0, trials_per_host=1, concurrency=1, shared=False
    )
    watch = Watch()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        asked = replace(rules(trials=trials), search="random")
        scheduler = StudyScheduler(asked, StudyJournal(Path(name)), (watch,))
        dispatcher = hosts_alone(Instant, None, partition)
        dispatcher.start()
        ray_tune.run(scheduler, dispatcher)
        dispatcher.give_back(all_idle=True)
    ray.shutdown()
    half = [count for count in watch.kib if count >= trials / 3]
    slope = _slope(half, [watch.kib[count] for count in half])
    quarters = [watch.kib[half[number * len(half) // 4]] / 1024 for number in range(4)]
    mib = ", ".join(f"{each:.1f}" for each in [*quarters, watch.kib[half[-1]] / 1024])
    print(f"{trials} instant trials through Ray Tune: driver {slope:+.1f} KiB a trial ({mib} MiB)")


if __name__ == "__main__":
    counts = [int(given) for given in sys.argv[1:]]
    studies = ((real, REAL), (instant, INSTANT), (tuned, TUNED))
    for number, (study, usual) in enumerate(studies):
        if count := counts[number] if number < len(counts) else usual:
            study(count)
