"""What a study computes in, wherever its devices are and whatever they are."""

from dataclasses import replace
from pathlib import Path

from study import spaces
from study.arithmetic import Arithmetic
from study.settings import Settings, open_folder, precision

A100 = Arithmetic(precision="bf16", devices=8, device_gib=79.2)
T4 = Arithmetic(precision="fp32", devices=1, device_gib=14.6)


def test_several_machines_do_what_each_of_them_can() -> None:
    assert Arithmetic.joint([A100]) == A100
    found = Arithmetic.joint([A100, T4])
    assert found == Arithmetic(precision="fp32", devices=9, device_gib=14.6)
    processors = Arithmetic(precision="bf16", devices=0, device_gib=0.0)
    assert Arithmetic.joint([processors, processors]) == processors and not processors.cuda


def test_a_study_goes_on_in_the_precision_in_which_it_began(tmp_path: Path) -> None:
    settings = Settings(space="smoke")
    assert precision(tmp_path, "one", settings) == "auto", "the devices say"
    open_folder(tmp_path, "one", settings, spaces.load("smoke"), {"precision": "bf16"})
    assert precision(tmp_path, "one", settings) == "bf16"
    assert precision(tmp_path, "one", replace(settings, precision="fp32")) == "fp32"
