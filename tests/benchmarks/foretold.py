"""Is the time that a plan foretells kept, and what is left while a study runs?

``python -m tests.benchmarks.foretold [KIND ...]`` runs a study of each kind, or of those named, as
a user would, and prints what its plan said (about, most), what it took from the start of the
command to its end, and what its lines said to be left after the first trial and in the middle,
beside what then was left.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

KINDS = {
    "smoke": "--space smoke",
    "short trials": "--space layernorm_vs_lora --trials 8 --max-examples 640 --seeds 1",
    "whole trials": "--space layernorm_vs_lora --trials 8 --stop none --seeds 2",
    "11 arms": "--space peft_methods --trials 22 --max-examples 640 --seeds 1",
    "11 arms, 40 trials": "--space peft_methods --trials 40 --max-examples 640 --seeds 2",
    "frozen image encoder": "--space per_slot --arm frozen_full_lora,frozen_lora_lora --trials 12"
    " --max-examples 1280 --seeds 2",
    "one at a time": "--space layernorm_vs_lora --trials 6 --max-examples 640 --concurrency 1",
    "two searches": "--space layernorm_vs_lora --trials 6 --searches 2 --max-examples 640",
    "larger images": "--space layernorm_vs_lora --trials 6 --max-examples 320 --seeds 1"
    " --image-size 224",
    "main job": "--space layernorm_vs_lora",
}
"""Kind of a study -> its options."""
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
DURATION = r"([\d.e+]+) (s|min|h)"
PLAN = re.compile(rf"time +about {DURATION}, at most {DURATION}")
LINE = re.compile(r"\[(\d+)/(\d+), ([\d:]+) left")


def seconds(clock: str) -> float:
    """Seconds of ``h:mm:ss`` or ``m:ss``."""
    found = 0.0
    for part in clock.split(":"):
        found = 60 * found + float(part)
    return found


def run(options: Sequence[str]) -> tuple[float, float, float, list[tuple[float, float]]]:
    """Seconds that were foretold (about, most), that the study took, and, for each line that says
    what is left, when it was printed and what it says."""
    about = most = 0.0
    said = []
    with tempfile.TemporaryDirectory(prefix="studies-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "study.launch", *options, "--storage", folder]
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as study:
            assert study.stdout is not None
            for line in study.stdout:
                if found := PLAN.search(line):
                    about, most = (float(found[i]) * UNITS[found[i + 1]] for i in (1, 3))
                if found := LINE.search(line):
                    said.append((time.monotonic() - began, seconds(found[3])))
        took = time.monotonic() - began
        assert study.returncode == 0 and about and said, command
    return about, most, took, said


def main(kinds: Sequence[str]) -> None:
    """Run the studies and print the table."""
    print(
        f"{'':22}{'about':>7}{'most':>7}{'took':>7}{'about/took':>12}{'left/truth: first':>19}",
        end="",
    )
    print(f"{'middle':>8}")
    for kind in kinds or KINDS:
        about, most, took, said = run(KINDS[kind].split())
        first, middle = (said[i] for i in (0, len(said) // 2))
        print(f"{kind:22}{about:7.0f}{most:7.0f}{took:7.0f}{about / took:12.2f}", end="")
        ratios = [left / (took - when) for when, left in (first, middle)]
        print(f"{ratios[0]:19.2f}{ratios[1]:8.2f}{'  passed' * (took > most)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
