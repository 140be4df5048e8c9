"""Time that ``python -m study.list`` takes for many studies, in a folder and in an object store.

``python -m tests.benchmarks.list_studies`` makes 200 studies, half of them finished and half not,
each with a journal of 31 trials or results of 40, and the files of their answers. It prints the
seconds from the command to its end, the import of Python's packages included, and those of them for
which it had a processor, which neighbours leave alone. The store is moto, a server in Python, whose
own processor time is in the first only.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from study.analysis import results_file
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.study_json import open_study
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage.object_store import ObjectStore
from study.storage.study_folder import StudyFolder
from tests.study.finished import collected
from tests.study.made_up import play_all, rules
from tests.study.object_store import serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder, "studies")
        storage.mkdir()
        make(storage, given.studies)
        show("folder", str(storage), given.runs, os.environ)
        with serve("medvlm") as environment:
            put(storage, environment)
            url = "s3://medvlm/studies"
            show("object store", url, given.runs, os.environ | environment)


def make(storage: Path, studies: int) -> None:
    """Make studies: two by the project's own code, the others as copies."""
    definition = StudyDefinition.parse(Settings(space="smoke"))
    for name in ("finished", "begun"):
        open_study(
            StudyFolder(storage=storage, name=name), definition, run=definition.space.arms, base={}
        )
    results_file.write(storage / "finished", collected(storage / "finished"))
    play_all(StudyScheduler(rules(trials=24), StudyJournal(storage / "begun")))
    for number in range(studies):
        origin = ("finished", "begun")[number % 2]
        shutil.copytree(storage / origin, storage / f"smoke-phantom-{number:03d}")
    for name in ("finished", "begun"):
        shutil.rmtree(storage / name)


def put(storage: Path, environment: dict[str, str]) -> None:
    """Upload all studies."""
    os.environ.update(environment)
    store = ObjectStore("s3://medvlm/studies")
    for file in sorted(path for path in storage.rglob("*") if path.is_file()):
        store.put(file, str(file.relative_to(storage)))


def show(
    what: str, storage: str, runs: int, environment: os._Environ[str] | dict[str, str]
) -> None:
    """Time the command, and print the seconds of each run and the last line that it shows."""
    seconds, command = [], [sys.executable, "-m", "study.list", "--storage", storage]
    for _ in range(runs):
        began, before = time.perf_counter(), _processor()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        seconds.append((time.perf_counter() - began, _processor() - before))
    listed = ", ".join(f"{whole:.2f} ({busy:.2f})" for whole, busy in seconds)
    print(f"{what}: {listed} s; {done.stdout.splitlines()[-1]}", flush=True)


def _processor() -> float:
    """Processor seconds of the commands that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    main()
