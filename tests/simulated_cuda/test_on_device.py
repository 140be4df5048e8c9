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


ONE_OF_EACH_KIND = (
    "training/test_trial.py::test_golden_losses[blip-lora]",
    "training/test_trial.py::test_golden_losses[llava-layernorm]",
    "training/test_trial.py::test_answers_are_in_the_order_of_the_data[blip]",
    "training/test_checkpoint.py::test_a_restored_trial_goes_on_as_if_nothing_had_happened[blip-3]",
    "training/test_frozen_features.py::test_losses_and_answers_are_the_same[llava-bf16]",
    "packing/test_pack.py::test_packed_as_alone[blip-all but the last slot-fp32-sizes2]",
    "memory/test_calibration.py::test_it_takes_what_is_predicted[blip-lora]",
    "memory/test_footprint.py::test_it_is_what_the_allocator_gives_out[blip-lora-lora-bf16]",
    "packing/test_quantised_base.py::test_packed_as_alone[llava-fp32]",
    "memory/test_quantised_footprint.py",
)
"""Tests of ``tests/trainables``: training, answering, restoring, features, packing and memory; and
a base in four bits."""
EVERYTHING = ("methods", "models/test_families.py", "packing", "training", "memory", "export")
"""Tests of ``tests/trainables`` that run on a workload's device."""


@pytest.mark.long
def test_devices_waits_and_one_of_each_kind() -> None:
    chosen = [f"tests/trainables/{test}" for test in (*ONE_OF_EACH_KIND, "devices")]
    run_on_device("tests/simulated_cuda/on_device", *chosen, "-m", "not by_hand")


@pytest.mark.by_hand
@pytest.mark.parametrize("folder", EVERYTHING)
def test_everything(folder: str) -> None:
    run_on_device(f"tests/trainables/{folder}", "-m", "not deepspeed")


@pytest.mark.slow
def test_waits_of_every_class() -> None:
    run_on_device("tests/simulated_cuda/on_device/test_waits.py", "-m", "by_hand")
