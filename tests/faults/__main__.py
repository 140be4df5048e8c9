"""``python -m tests.faults [--list] [--only NAME,...]``: put faults into real studies, and print a
table of what became of them. All of them take some half an hour on two quiet cores.

Exit code 1 if one was not survived.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.faults import ELSEWHERE, FAULTS, Outcome, try_one, undisturbed
from tests.study.command_line import REPOSITORY


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--list", action="store_true", help="show the faults")
    parser.add_argument("--only", default="", help="names of faults, with commas between them")
    asked = parser.parse_args()
    names = [*(fault.name for fault in FAULTS), *ELSEWHERE]
    if asked.list:
        print("\n".join(names))
        return 0
    only = [name for name in asked.only.split(",") if name] or names
    if unknown := sorted(set(only) - set(names)):
        print(f"error: --only {','.join(unknown)}: --list shows the faults", file=sys.stderr)
        return 2
    failed = 0
    print(f"{'injected':26} survived  lost  doubled  seconds", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        storage = Path(folder)
        if any(fault.name in only for fault in FAULTS):
            undisturbed(storage)
        for fault in FAULTS:
            if fault.name in only:
                try:
                    found = try_one(fault, storage)
                except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                    why = str(error).strip()[-300:]
                    found = Outcome(survived=False, lost=0, doubled=0, seconds=0.0, why=why)
                failed += not found.survived
                row = f"{fault.name:26} {'yes' if found.survived else 'NO':8} {found.lost:5d}"
                print(f"{row} {found.doubled:8d} {found.seconds:8.0f}  {found.why}", flush=True)
    for name, tests in ELSEWHERE.items():
        if name in only:
            began = time.monotonic()
            pytest = [sys.executable, "-m", "pytest", "-q", *tests.split()]
            done = subprocess.run(
                pytest, check=False, cwd=REPOSITORY, capture_output=True, text=True
            )
            failed += done.returncode != 0
            last = done.stdout.strip().splitlines()[-1]
            survived = "yes" if done.returncode == 0 else "NO"
            took = time.monotonic() - began
            print(f"{name:26} {survived:8}     -        - {took:8.0f}  {last}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
