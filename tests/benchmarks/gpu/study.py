"""Part 5: a whole study, against the very trials that it ran in a plain loop."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.benchmarks.gpu.machine import NOTHING, Machine, Measurement, Result, Verdict

TITLE = "a whole study against its trials in a plain loop"
TRIALS = 8
GOAL = f"a study of {TRIALS} trials or more is never slower than the loop"
WEIGHT = 4
NEEDS = ("ray", "optuna", "mlflow", "pyarrow", "rich")
STUDIES = (("layernorm_vs_lora", 8, 640), ("layernorm_vs_lora", 24, 640))
"""Search space, trials, and training examples of a trial."""
SMALL = (("smoke", 4, 64),)


def measurements(machine: Machine) -> list[Measurement]:
    """Each study with its loop."""
    return [
        Measurement(
            name=f"{space}, {trials} trials of {examples} examples",
            take=partial(compare, machine, space, trials, examples),
            needs=NEEDS,
        )
        for space, trials, examples in (SMALL if machine.small else STUDIES)
    ]


def line(result: Result) -> str:
    """Seconds of both."""
    return (
        f"{result['trials']} trials in {result['study_seconds']:.0f} s, in a plain loop "
        f"{result['loop_seconds']:.0f} s: {result['faster']:.2f} times"
    )


def verdict(results: Mapping[str, Result]) -> Verdict:
    """How much faster each study is."""
    found = {name: r for name, r in results.items() if "faster" in r}
    if not found:
        return NOTHING
    long = [r["faster"] >= 1 for r in found.values() if r["trials"] >= TRIALS]
    text = "; ".join(f"{name}: {r['faster']:.2f} times" for name, r in found.items())
    return Verdict(all(long) if long else None, text)


def compare(machine: Machine, space: str, trials: int, examples: int) -> Result:
    """Wall seconds of ``study.launch``, and of its trials one after another in one process that
    loads the model once."""
    from tests.benchmarks import study_cost

    asked = {"trials": trials, "max-examples": examples, "seeds": 1, "precision": machine.precision}
    with tempfile.TemporaryDirectory(prefix="studies-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "study.launch", "--storage", folder, "--name", "ours"]
        command += ["--space", space]
        for name, value in asked.items():
            command += [f"--{name}", str(value)]
        ours = study_cost.measure(command)
        ran, _ = study_cost.trials_of(Path(folder))
        job = {"trials": ran, "precision": machine.precision, "image_size": None}
        loop = study_cost.again("plain", job, Path(folder))
    return {
        "trials": len(ran),
        "study_seconds": ours["wall"],
        "loop_seconds": loop["wall"],
        "faster": loop["wall"] / ours["wall"],
    }
