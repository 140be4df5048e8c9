"""Runs Python with simulated CUDA devices.

python -m tests.simulated_cuda [--devices N] [--gib N] -m pytest tests/trainables
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.simulated_cuda.environment import environment


def main() -> None:
    """Replace this process by a Python with simulated devices."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulated_cuda", allow_abbrev=False)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--gib", type=float, default=16, help="memory of each device")
    given, python = parser.parse_known_args()
    os.environ.update(environment(devices=given.devices, gib=given.gib))
    os.execv(sys.executable, [sys.executable, *python])


if __name__ == "__main__":
    main()
