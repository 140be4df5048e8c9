"""Writes an archive of studies as a checkout of this project leaves them on disk.

    git worktree add /tmp/medvlm-earlier e565197
    python -m tests.stored_studies.write /tmp/medvlm-earlier studies.tar.xz

``studies.tar.xz`` beside this file was written by commit e565197 and is never written again: what
lies in it must stay readable. One storage folder with its MLflow database holds

- ``finished``: a study that has ended, and the export of its arm ``lora``;
- ``half``: the same study, whose driver was killed when its first trial had ended and its second
  was being trained;
- ``objectives``: a study with two objectives that has ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

STORAGE = Path("/tmp/stored-studies")
"""The storage folder: its path stands in MLflow's database, so it names no machine."""
COMMON = ("--space", "smoke", "--trials", "3", "--seeds", "2", "--concurrency", "1")
STUDIES = {
    "finished": (*COMMON, "--max-examples", "128", "--precision", "fp32"),
    "objectives": (*COMMON, "--max-examples", "64", "--objective", "score,memory"),
    "half": (*COMMON, "--max-examples", "128", "--precision", "fp32"),
}


def main(checkout: Path, archive: Path) -> None:
    """Run the studies with the code in ``checkout`` and pack what they leave into ``archive``."""
    STORAGE.mkdir()  # an error where it exists: nothing of another run gets into the archive
    try:
        for name, options in STUDIES.items():
            command = ["-m", "study.launch", "--storage", str(STORAGE), "--name", name, *options]
            with _start(checkout, *command) as study:
                if name == "half":
                    _kill_in_second_trial(study, STORAGE / name / "study.log")
                elif study.wait() != 0:
                    raise SystemExit(f"{command} failed")
        export = ["-m", "study.export", "finished", "--arm", "lora", "--storage", str(STORAGE)]
        with _start(checkout, *export) as exported:
            exported.wait()
        with tarfile.open(archive, "w:xz", preset=9) as packed:
            packed.add(STORAGE, arcname="studies", filter=_of_nobody)
    finally:
        shutil.rmtree(STORAGE)


def _start(checkout: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        start_new_session=True,
    )


def _kill_in_second_trial(study: subprocess.Popen[bytes], log: Path) -> None:
    """Kill a study when its second trial has reported its first of two rungs."""
    while not (log.exists() and log.read_text(encoding="utf-8").count(" rung ") >= 3):
        if study.poll() is not None:
            raise SystemExit("the study ended before it was killed")
        time.sleep(0.02)
    os.killpg(study.pid, signal.SIGKILL)


def _of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """A file of the archive without the name of who wrote it; None leaves it out."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return None if member.name.endswith(".lock") else member


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
