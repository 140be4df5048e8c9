"""What a study costs besides its arithmetic: the usual ways against ours, on the same trials.

    python -m tests.benchmarks.study_cost                           layernorm_vs_lora
    python -m tests.benchmarks.study_cost --space tests/benchmarks/text_stacks.py --image-size 224

Ours runs a study; then the very trials that it drew, each trained as far as it was, are run

* *plain*: one after another in one process that loads the model once (an Optuna loop; what is drawn
  and stopped is given, which favours it), on all processors;
* *ray*: by the pattern of Ray's documentation, a Tune function that starts a ``TorchTrainer`` for
  each trial, whose worker loads model and data. It takes long, so only the first ``--ray-trials``
  are run; the table adds for each other trial what these took on average.

Efficiency is time in training, validation and answers over wall time and processors. Last, how near
a step of each arm comes to what the processor can compute (``step_limit``).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.main_job import children, pss_gib
from tests.benchmarks.start_up import processor_seconds

SAMPLE_SECONDS = 1.0
CORES = os.cpu_count() or 1


def load(job: dict[str, Any]) -> Any:
    """The workload of the study."""
    from trainables.workload import Workload, WorkloadConfig

    return Workload.load(WorkloadConfig(image_size=job["image_size"]))


def run_trial(workload: Any, trial: dict[str, Any], precision: str) -> float:
    """Train a trial of ``results.json`` as far as it got there; seconds of arithmetic."""
    from trainables.recipe import Recipe
    from trainables.training.blind import BLIND, blind
    from trainables.training.trial import Trial
    from trainables.training.trial_config import TrialConfig

    config = TrialConfig(
        recipe=Recipe.from_plain(trial["recipe"]),
        lr=trial["lr"],
        seed=trial["seed"],
        max_examples=trial["max_examples"],
        batch_size=trial["batch_size"],
    )
    running = Trial(workload, config, precision=precision)
    began = time.perf_counter()
    for stop in trial["stops"]:
        running.train(stop)
        running.validation_loss()
    if trial["outcome"] == "complete":
        running.answers("validation")
        if trial["kind"] != "search":
            running.answers("test")
            running.likelihoods("test")
            for way in BLIND:
                running.answers("test", blind(workload, way, "test"))
    return time.perf_counter() - began


def plain(job: dict[str, Any]) -> dict[str, float]:
    """One after another, the model loaded once."""
    import torch

    torch.set_num_threads(CORES)
    workload = load(job)
    took = [run_trial(workload, trial, job["precision"]) for trial in job["trials"]]
    return {"arithmetic": sum(took)}


def by_ray(job: dict[str, Any]) -> dict[str, float]:
    """A trainer a trial."""
    import ray
    from ray import train, tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    def loop(trial: dict[str, Any]) -> None:
        train.report({"arithmetic": run_trial(load(job), trial, job["precision"])})

    def driver(config: dict[str, Any]) -> None:
        TorchTrainer(
            loop,
            train_loop_config=config["trial"],
            scaling_config=train.ScalingConfig(num_workers=1),
            run_config=train.RunConfig(
                name=config["trial"]["trial"],
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # Ray
            ),
        ).fit()

    ray.init(address="local", log_to_driver=False, logging_level=logging.ERROR)
    tuner = tune.Tuner(
        tune.with_resources(driver, {"cpu": 0.01}),
        param_space={"trial": tune.grid_search(job["trials"])},
        tune_config=tune.TuneConfig(max_concurrent_trials=max(1, CORES - 1)),
        run_config=tune.RunConfig(verbose=0, storage_path=tempfile.mkdtemp(prefix="ray-")),
    )
    grid = tuner.fit()
    found = [metrics for i in range(len(grid)) if (metrics := grid[i].metrics)]
    return {
        "arithmetic": sum(float(metrics["arithmetic"]) for metrics in found),
        "trials": sum(float(metrics["time_total_s"]) for metrics in found),
    }


def measure(command: list[str]) -> dict[str, float]:
    """Run a command: wall and processor seconds, and peak memory, of it and all that it starts."""
    began, peak, spent = time.perf_counter(), 0.0, 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as job:
        try:
            while job.poll() is None:
                pids = children(job.pid)
                peak = max(peak, sum(map(pss_gib, pids)))
                spent = max(spent, processor_seconds(pids))
                time.sleep(SAMPLE_SECONDS)
        except BaseException:  # as where the caller's time is over: the job ends too
            job.terminate()
            raise
    assert job.returncode == 0, command
    return {"wall": time.perf_counter() - began, "cpu": spent, "gib": peak}


def trials_of(studies: Path) -> tuple[list[dict[str, Any]], float]:
    """What the study ran, with what it takes to run it again; seconds from the first trial's begin
    to the last one's end."""
    from study.search.journal import StudyJournal

    found = []
    records = StudyJournal(studies / "ours").records.values()
    for record in records:
        stops = [rung.examples_seen for rung in record.rungs]
        trial = record.spec.plain() | {"trial": record.spec.id, "stops": stops}
        seconds = record.costs.get("seconds", 0.0)
        found.append(trial | {"outcome": str(record.outcome), "seconds": seconds})
    ended = max(record.ended_at or 0.0 for record in records)
    return found, ended - min(record.started_at for record in records)


def main(arguments: list[str]) -> None:
    """Run all three and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="layernorm_vs_lora")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--max-examples", type=int, default=640)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--image-size", type=int)
    parser.add_argument(
        "--precision", default="fp32", choices=("fp32", "bf16"), help="of all sides"
    )
    parser.add_argument("--concurrency", type=int, help="of ours")
    parser.add_argument("--ray-trials", type=int, default=1)
    given = parser.parse_args(arguments)
    sides: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="studies-", ignore_cleanup_errors=True) as folder:
        ours = [sys.executable, "-m", "study.launch", "--storage", folder, "--name", "ours"]
        for name in (
            "space",
            "trials",
            "max_examples",
            "seeds",
            "image_size",
            "precision",
            "concurrency",
        ):
            value = getattr(given, name)
            ours += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
        sides["ours"] = measure(ours)
        ran, training = trials_of(Path(folder))
        sides["ours"]["arithmetic"] = sum(trial["seconds"] for trial in ran)
        print(f"{len(ran)} trials, {sum(max(t['stops'], default=0) for t in ran):,} examples")
        print(f"{'':6} {'wall s':>8} {'cpu s':>8} {'GiB':>6} {'trials/h':>9} {'efficiency':>10}")
        show("ours", sides["ours"], len(ran), CORES)
        few = [trial for trial in ran if trial["stops"]][: given.ray_trials]
        for side, some in {"plain": ran, "ray": few}.items():
            sides[side] = again(side, {**vars(given), "trials": some}, Path(folder))
            if side == "ray":
                project(sides[side], len(some), len(ran))
            # One trial at a time has all processors.
            show(side, sides[side], len(ran), 1 if side == "plain" else CORES)
    print(f"ray: projected by trial from {len(few)} of {len(ran)}")
    after = sides["ours"]["arithmetic"] / training / CORES
    print(f"ours from the first trial's begin to the last one's end: efficiency {after:.2f}")
    for side in ("plain", "ray"):
        for name in ("wall", "cpu"):
            ratio = sides[side][name] / sides["ours"][name]
            print(f"{side} / ours, {name}: {ratio:.1f}", flush=True)
    limit = ["--space", given.space, "--precision", given.precision]
    limit += ["--image-size", str(given.image_size)] if given.image_size else []
    subprocess.run([sys.executable, "-m", "tests.benchmarks.step_limit", *limit], check=True)


def again(side: str, job: dict[str, Any], folder: Path) -> dict[str, float]:
    """The trials of ``job`` in a process that does them that way."""
    given, told = folder / "job.json", folder / "arithmetic.json"
    given.write_text(json.dumps(job))
    here = [sys.executable, "-m", "tests.benchmarks.study_cost"]
    cost = measure([*here, side, str(given), str(told)])
    arithmetic: dict[str, float] = json.loads(told.read_text())
    return cost | arithmetic


def project(cost: dict[str, float], ran: int, trials: int) -> None:
    """From the trials that were run to all: what they took again, and not the start of Ray."""
    share = cost["trials"] / cost["wall"]
    more = trials / ran - 1
    cost["cpu"] += cost["cpu"] * share * more
    cost["wall"] += cost["trials"] * more
    cost["arithmetic"] *= trials / ran


def show(side: str, cost: dict[str, float], trials: int, used: int) -> None:
    """A row."""
    efficiency = cost["arithmetic"] / cost["wall"] / used
    print(
        f"{side:6} {cost['wall']:8.0f} {cost['cpu']:8.0f} {cost['gib']:6.2f} "
        f"{3600 * trials / cost['wall']:9.0f} {efficiency:10.2f}",
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1:2] in (["plain"], ["ray"]):
        side, given, told = sys.argv[1:]
        do = {"plain": plain, "ray": by_ray}[side]
        Path(told).write_text(json.dumps(do(json.loads(Path(given).read_text()))))
    else:
        main(sys.argv[1:])
