"""Peak memory of trials that one process trains one after another.

``python -m tests.benchmarks.trial_memory [search|confirm [TRIALS [EXAMPLES [PRECISION]]]]``: so
many (5) trials of LoRA of ranks 4 to 32 on all layers of the embedded model, of so many (160)
examples each, in bf16. ``ONEDNN_PRIMITIVE_CACHE_CAPACITY=1024 LRU_CACHE_CAPACITY=1024`` before it
gives PyTorch's own bounds (``trainables.memory.kernel_caches``).
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path

import psutil

from study.planning.placement import uniform_placement
from study.storage.study_folder import StudyFolder
from study.trials.spec import Kind, TrialSpec
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, TrialReport
from study.worker.resident_trials import ResidentTrials
from trainables.training.regime import Regime
from trainables.workload import WorkloadConfig

RANKS = (8, 16, 32, 4)
BATCH = 16


def spec(kind: Kind, number: int, examples: int) -> TrialSpec:
    """The trial of this number."""
    rank = RANKS[number % len(RANKS)]
    lora = {"method": "lora", "everywhere": True, "rank": rank, "targets": ["all"]}
    return TrialSpec(
        kind=kind,
        arm="lora",
        parameters={},
        recipe=dict.fromkeys(("vision", "fusion", "decoder"), lora),
        lr=2e-3,
        seed=number,
        max_examples=examples,
        batch_size=BATCH,
        stops=(examples // 2, examples),
        base="made up",
    )


def train(residents: ResidentTrials, trial: TrialSpec) -> TrialReport:
    """The last report of a trial."""
    alone = uniform_placement(
        devices=1, deepspeed="off", batch_size=BATCH, sharing=1, reason="a benchmark"
    )
    order, report = AdvanceTrial(spec=trial, placement=alone), TrialReport()
    while not report.done:
        reply = Future[TrialReport]()
        residents.advance(order, reply)
        while not reply.done():
            residents.step()
        report = reply.result()
        order = order.after(report)
    return report


def main() -> None:
    """Print the peak of each trial."""
    given = sys.argv[1:]
    kind, trials, examples, precision = (*given, *("search", "5", "160", "bf16")[len(given) :])
    process = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        config = HostConfig(
            workload=WorkloadConfig(precision=precision),
            ood_workloads={},
            study_folder=StudyFolder(storage=Path(folder), name="memory"),
            regime=Regime(),
            trials_per_host=1,
        )
        residents = ResidentTrials(config)
        for number in range(int(trials)):
            began = time.process_time()
            report = train(residents, spec(Kind(kind), number, int(examples)))
            assert report.outcome == "complete", report.error
            gib = process.memory_info().rss / 2**30
            print(
                f"trial {number}: peak {report.costs['peak_memory_gib']:.2f} GiB, {gib:.2f} after "
                f"it, {time.process_time() - began:.1f} s of a processor",
                flush=True,
            )


if __name__ == "__main__":
    main()
