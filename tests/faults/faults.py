"""The faults, and how one is put into a real study.

A study of five small trials is disturbed while it trains. It must go on, or end with the code that
its fault has. Then the same command is given again, and the study must end with the numbers of an
undisturbed one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from mlflow import MlflowClient

from study.tracking.mlflow_store import default_uri
from tests.study.command_line import REPOSITORY, command, launch, numbers, results, runs
from tests.trainables.cut_short import cut
from tests.trainables.data.small import jsonl
from tests.trainables.test_command import takes_signals

ASKED = ("--space", "smoke", "--data", "jsonl", "--split", "by_image", "--trials", "2")
SMALL = ("--max-examples", "96", "--seeds", "1", "--concurrency", "1")
STILL_SECONDS = "20"
"""Value of STUDY_STILL_SECONDS in studies of which a process is stopped."""
LONGEST_SECONDS = 1200.0
"""Longest time in seconds that a study may take. It takes some 60 on two quiet processors; a fault
is not unsurvived because others use the machine."""
Inject = Callable[[psutil.Process, Path], None]
"""Puts the fault in. Takes the driver's process and the study's folder."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault, and what a study makes of it."""

    name: str
    inject: Inject
    code: int = 0
    """Exit code of the study; 0 if it goes on by itself."""
    said: str = ""
    """Words that the study shows."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a study that had a fault."""

    survived: bool
    lost: int
    """Trials that an undisturbed study has and this one lacks."""
    doubled: int
    """Runs in MLflow of trials that have another run."""
    seconds: float
    """Seconds until the study had its answer, with the second command if there was one."""
    why: str = ""
    """What was not as it should be; empty if all was."""


def driver(number: signal.Signals, times: int = 1) -> Inject:
    """Send the driver a signal."""

    def inject(process: psutil.Process, folder: Path) -> None:
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.2)

    return inject


def child(number: signal.Signals, words: str, *, forked: bool = False) -> Inject:
    """Send a signal to the process of the study that has ``words`` in its command line, or to the
    process that was forked from it."""

    def inject(process: psutil.Process, folder: Path) -> None:
        for found in process.children(recursive=True):
            if words in " ".join(found.cmdline()):
                (found.children()[0] if forked else found).send_signal(number)
                return
        raise AssertionError(f"no process has {words!r}")

    return inject


def torn(where: str) -> Inject:
    """Kill the driver, and cut a file that was being written in half."""

    def inject(process: psutil.Process, folder: Path) -> None:
        process.kill()
        while process.status() != psutil.STATUS_ZOMBIE:  # its exit code is for who started it
            time.sleep(0.01)
        for file in folder.glob(where):
            cut(file, "in half") if where != "optuna.journal" else _half_a_line(file)

    return inject


def _half_a_line(file: Path) -> None:
    with file.open("ab") as end:
        end.write(b'{"op_code": 8, "worker_id": "x", "tri')


HOST, CLIENT, ZYGOTE = "ray::HostActor", "ray::ResourceTrainable", "study.worker import zygote"
HANGS = f"hangs: it has computed nothing for {STILL_SECONDS} seconds"
FAULTS = (
    Fault(name="driver-killed", inject=driver(signal.SIGKILL), code=-9),
    Fault(name="driver-terminated", inject=driver(signal.SIGTERM), code=143, said="goes on"),
    Fault(name="driver-interrupted-twice", inject=driver(signal.SIGINT, 2), code=-2),
    Fault(name="terminal-closed", inject=driver(signal.SIGHUP), code=129),
    Fault(name="host-killed", inject=child(signal.SIGKILL, ZYGOTE, forked=True)),
    Fault(name="host-actor-killed", inject=child(signal.SIGKILL, HOST)),
    Fault(name="client-killed", inject=child(signal.SIGKILL, CLIENT)),
    Fault(name="zygote-killed", inject=child(signal.SIGKILL, ZYGOTE)),
    Fault(name="host-stopped", inject=child(signal.SIGSTOP, ZYGOTE, forked=True), said=HANGS),
    Fault(name="host-actor-stopped", inject=child(signal.SIGSTOP, HOST), said=HANGS),
    Fault(name="client-stopped", inject=child(signal.SIGSTOP, CLIENT), said=HANGS),
    Fault(
        name="raylet-killed",
        inject=child(signal.SIGKILL, "raylet/raylet"),
        code=2,
        said="error: Ray on this machine (its raylet) has died; nothing is lost: --resume",
    ),
    Fault(
        name="gcs-killed",
        inject=child(signal.SIGKILL, "gcs/gcs_server"),
        code=2,
        said="error: Ray on this machine (its GCS) has died; nothing is lost: --resume",
    ),
    Fault(name="checkpoint-torn", inject=torn("checkpoints/*/[0-9]*/optimizer.pt"), code=-9),
    Fault(name="journal-torn", inject=torn("optuna.journal"), code=-9),
)
ELSEWHERE = {
    "disk-full": "tests/whole_studies/test_end_to_end.py -k disk_fills_up",
    "disk-full-for-each-writer": "tests/whole_studies/test_full_disk.py",
    "nodes-lost": "tests/whole_studies/test_lost_nodes.py",
    "nodes-and-driver-lost": "tests/whole_studies/test_real_stack.py",
    "gang-worker-lost": "tests/whole_studies/test_mixed.py",
    "gang-node-lost": "tests/whole_studies/test_gang_nodes.py",
    "gang-workers-apart": "tests/whole_studies/test_gang_begins.py",
    "gang-worker-hung": "tests/whole_studies/test_gang.py -k hangs",
    "mlflow-answers-lost": "tests/study/tracking/test_mlflow_runs.py",
    "mlflow-database-half-made": "tests/study/tracking/test_mlflow_database.py",
    "no-locks": "tests/study/storage/test_no_locks.py",
    "ray-too-slow": "tests/study/execution/test_cluster.py -k too_slow",
}
"""Faults that tests of their own put in -> arguments of pytest."""


def undisturbed(storage: Path) -> None:
    """Run the study without a fault, as ``undisturbed``."""
    (storage / "data").mkdir(parents=True)
    jsonl.write(storage / "data")
    launch(storage, *_asked(storage, "undisturbed"), seconds=LONGEST_SECONDS)


def _asked(storage: Path, name: str) -> tuple[str, ...]:
    return (*ASKED, *SMALL, "--data-root", str(storage / "data"), "--name", name)


def try_one(fault: Fault, storage: Path) -> Outcome:
    """Put a fault into a study, and see what becomes of it. ``storage`` has the undisturbed one."""
    began, why = time.monotonic(), []
    code, shown = _disturbed(fault, storage)
    if code != fault.code:
        why.append(f"exit code {code} for {fault.code}: {shown.strip()[-300:]}")
    if fault.said not in shown:
        why.append(f"it does not say {fault.said!r}")
    if "Traceback" in shown:
        why.append("it shows a traceback")
    if code != 0:
        launch(storage, *_asked(storage, fault.name), seconds=LONGEST_SECONDS)
    found, expected = (numbers(results(storage, n)) for n in (fault.name, "undisturbed"))
    if found != expected:
        why.append("its numbers are others")
    lost = {trial[0] for trial in expected} - {trial[0] for trial in found}
    studies = (run for run in runs(storage, "smoke") if run.data.tags["kind"] == "study")
    (parent,) = (run for run in studies if run.data.tags["study"] == fault.name)
    recorded = [
        run.data.tags["trial"]
        for run in runs(storage, "smoke")
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    if set(recorded) != {trial[0] for trial in expected}:
        why.append("MLflow lacks a trial")
    if MlflowClient(default_uri(storage)).get_run(parent.info.run_id).info.status != "FINISHED":
        why.append("its run in MLflow is not finished")
    doubled = len(recorded) - len(set(recorded))
    return Outcome(
        survived=not (why or lost or doubled),
        lost=len(lost),
        doubled=doubled,
        seconds=time.monotonic() - began,
        why="; ".join(why),
    )


def _disturbed(fault: Fault, storage: Path) -> tuple[int, str]:
    """Exit code and output of a study that has the fault after its first rung."""
    output = storage / f"{fault.name}.shown"
    with (
        output.open("w") as shown,
        subprocess.Popen(
            command(storage, *_asked(storage, fault.name)),
            stdout=shown,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=takes_signals,  # noqa: PLW1509  # sets signals only
            cwd=REPOSITORY,
            env=os.environ | {"STUDY_STILL_SECONDS": STILL_SECONDS},
        ) as study,
    ):
        log, give_up = storage / fault.name / "study.log", time.monotonic() + LONGEST_SECONDS
        while not (log.exists() and " rung " in log.read_text()):
            assert study.poll() is None, output.read_text()
            assert time.monotonic() < give_up
            time.sleep(0.02)
        fault.inject(psutil.Process(study.pid), storage / fault.name)
        try:
            code = study.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            study.kill()
            code = study.wait()
    return code, output.read_text()
