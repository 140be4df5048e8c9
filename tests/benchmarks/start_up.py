"""From the command to the first training step: how long, and what every process did meanwhile.

``python -m tests.benchmarks.start_up [arguments of study.launch]``; with none it starts what
``make study`` asks. Each process of the study gets a tracer (a ``sitecustomize`` module) that notes
when heavy packages were imported and when the named functions ran; the study is ended at its first
training step. What overlaps counts once in the wall time but takes processors all the same: the
last line has the processor seconds of all processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.main_job import children

PACKAGES = ("torch", "transformers", "peft", "ray", "ray.tune", "optuna", "mlflow")
FUNCTIONS = (
    "study.launch:_launch",
    "study.config.checked_data:read",
    "study.tracking.mlflow_writer:open_tracking",
    "study.planning.study_plan:plan_study",
    "study.worker.zygote:_load",
    "study.worker.zygote:_serve",
    "study.worker.zygote:Zygote.__init__",
    "study.worker.zygote:Zygote.profile",
    "study.planning.workload_profile:arms",
    "study.planning.workload_profile:_step_seconds",
    "study.execution.cluster:connect",
    "study.execution.ray_tune:run",
    "study.search.journal:StudyJournal.__init__",
    "study.execution.host_pool:HostPool.__init__",
    "study.worker.host_actor:HostActor.__init__",
    "study.worker.host:Host.__init__",
    "study.execution.trial_client:TrialClient.setup",
    "trainables.workload:Workload.load",
    "trainables.packing.trial_group:TrialGroup.enter",
    "trainables.packing.trial_group:TrialGroup.step",
)
STEP = "trainables.packing.trial_group:TrialGroup.step"
ROLES = {
    "study.worker.zygote:_load": "zygote",
    "study.planning.workload_profile:arms": "profile",
    "study.worker.host:Host": "host",
    "study.worker.host_actor:": "actor",
    "study.execution.trial_client:": "client",
}
"""Beginning of what a process does -> which one it is."""
TRACER = f"""
import functools, importlib.machinery, inspect, json, os, sys, time

OUT = os.environ["START_UP_TRACE"]
PACKAGES, FUNCTIONS = {PACKAGES!r}, {FUNCTIONS!r}

def note(what, began):
    line = json.dumps(dict(pid=os.getpid(), what=what, began=began, ended=time.time()))
    with open(OUT, "a") as file:
        file.write(line + "\\n")

def wrap(module, path):
    *owners, name = path.split(".")
    owner = module
    for part in owners:
        owner = getattr(owner, part)
    plain = inspect.getattr_static(owner, name)
    kind = type(plain) if isinstance(plain, (classmethod, staticmethod)) else None
    function = plain.__func__ if kind else plain
    what = module.__name__ + ":" + path

    @functools.wraps(function)
    def timed(*arguments, **named):
        began = time.time()
        try:
            return function(*arguments, **named)
        finally:
            note(what, began)

    setattr(owner, name, kind(timed) if kind else timed)

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        paths = [f.split(":")[1] for f in FUNCTIONS if f.split(":")[0] == name]
        if name not in PACKAGES and not paths:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def timed(module):
            began = time.time()
            execute(module)
            if name in PACKAGES:
                note("import " + name, began)
            for function in paths:
                wrap(module, function)

        spec.loader.exec_module = timed
        return spec

sys.meta_path.insert(0, Finder)
note("python", time.time())
"""


def processor_seconds(pids: set[int]) -> float:
    """Of these processes and of children that they waited for."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def events(trace: Path) -> list[dict[str, Any]]:
    """What was noted so far."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    return [json.loads(line) for line in lines]


def main(arguments: list[str]) -> None:
    """Start a study, wait for its first step, print the trace."""
    with tempfile.TemporaryDirectory(prefix="start-up-", ignore_cleanup_errors=True) as folder:
        trace = Path(folder, "trace")
        Path(folder, "sitecustomize.py").write_text(TRACER)
        paths = [folder, str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "START_UP_TRACE": str(trace),
        }
        command = [sys.executable, "-m", "study.launch", "--storage", str(Path(folder, "studies"))]
        began = time.time()
        with subprocess.Popen(
            [*command, *(arguments or ["--space", "layernorm_vs_lora"])],
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        ) as study:
            while not any(event["what"] == STEP for event in events(trace)):
                assert study.poll() is None, "the study ended before its first step"
                time.sleep(0.05)
            spent = processor_seconds(children(study.pid))
            os.killpg(study.pid, signal.SIGKILL)
        found = sorted(events(trace), key=lambda event: float(event["began"]))
    step = next(event for event in found if event["what"] == STEP)
    roles = {study.pid: "driver"}
    for event in found:
        for beginning, role in ROLES.items():
            if event["what"].startswith(beginning):
                roles[event["pid"]] = role
    print(f"{'began':>7} {'took':>6}  process")
    for event in found:
        who = roles.get(event["pid"])
        if who is not None and event["began"] <= step["ended"] and event["what"] != "python":
            took = event["ended"] - event["began"]
            print(f"{event['began'] - began:7.2f} {took:6.2f}  {who:8} {event['what']}")
    processes = len({event["pid"] for event in found})
    print(f"first training step done after {step['ended'] - began:.1f} s, begun after", end=" ")
    print(f"{step['began'] - began:.1f} s; {processes} Python processes,", end=" ")
    print(f"{spent:.1f} processor seconds, {os.cpu_count()} processors")


if __name__ == "__main__":
    main(sys.argv[1:])
