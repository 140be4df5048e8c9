"""The main job as a new user runs it: seconds, and memory of all its processes together.

``python -m tests.benchmarks.main_job [arguments of study.launch]``; with none it runs the question
that ``make study`` asks. Memory is the sum of PSS (what processes share is counted once), sampled
twice a second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLE_SECONDS = 0.5


def children(of: int) -> set[int]:
    """A process and all that it started, and they."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        parents[int(entry.name)] = int(fields[1])
    found, known = {of}, 0
    while len(found) > known:
        known = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def pss_gib(pid: int) -> float:
    """Proportional set size of a process."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    kib = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return kib / 2**20


def main(arguments: list[str]) -> None:
    """Run it once and print what it took."""
    with tempfile.TemporaryDirectory(prefix="studies-") as storage:
        command = [sys.executable, "-m", "study.launch", "--storage", storage]
        started, peak, most = time.perf_counter(), 0.0, 0
        with subprocess.Popen([*command, *(arguments or ["--space", "layernorm_vs_lora"])]) as job:
            while job.poll() is None:
                pids = children(job.pid)
                peak, most = max(peak, sum(map(pss_gib, pids))), max(most, len(pids))
                time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
    print(
        f"\nexit code {job.returncode}, {seconds:.0f} s, {peak:.2f} GiB, {most} processes at most"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
