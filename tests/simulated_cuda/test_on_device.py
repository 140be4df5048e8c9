"""Tests that run with simulated CUDA devices, in a process of their own: the device's, and those of
``tests/trainables`` that train, pack, restore, answer and predict memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulated_cuda.environment import environment

REPOSITORY = Path(__file__).resolve().parents[2]


def run_on_device(*arguments: str) -> None:
    """Run pytest with two simulated devices."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *arguments],
        cwd=REPOSITORY,
        env={**own, **environment(devices=2)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]


@pytest.mark.long
def test_the_devices_behave_as_cuda_devices_do() -> None:
    run_on_device("tests/simulated_cuda/on_device/test_device.py")
