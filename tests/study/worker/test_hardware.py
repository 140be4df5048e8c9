"""How the devices compute on which a study runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from study.worker.hardware import Hardware

A100 = Hardware(precision="bf16", devices=8, device_gib=79.2, kind="cuda")
T4 = Hardware(precision="fp32", devices=1, device_gib=14.6, kind="cuda")
PROCESSORS = Hardware(precision="bf16", devices=0, device_gib=0.0, kind="cpu")
M3 = Hardware(precision="fp32", devices=1, device_gib=21.3, kind="mps")


def test_several_machines_do_what_each_of_them_can() -> None:
    assert Hardware.joint([A100]) == A100
    found = Hardware.joint([A100, T4])
    assert found == Hardware(precision="fp32", devices=9, device_gib=14.6, kind="cuda")
    assert Hardware.joint([PROCESSORS, PROCESSORS]) == PROCESSORS
    named = [replace(A100, names=("A100",)), replace(T4, names=("T4",)), replace(T4, names=("T4",))]
    assert Hardware.joint(named).names == ("A100", "T4")


@pytest.mark.parametrize(
    ("hardware", "shared", "untried"),
    [
        (A100, True, ""),
        (PROCESSORS, False, ""),
        (M3, False, "mps"),
        (Hardware.joint([T4, M3]), False, "mps"),
    ],
)
def test_only_a_kind_that_was_tried_is_shared(
    hardware: Hardware, shared: bool, untried: str
) -> None:
    assert (hardware.shared, hardware.untried) == (shared, untried)


def test_this_machine_has_what_pytorch_finds() -> None:
    found = Hardware.here("fp32")
    assert found.precision == "fp32" and found.devices == torch.accelerator.device_count()
    assert (found.kind == "cpu") == (found.devices == 0)
    assert all(name and "\n" not in name for name in found.names) and found.names
