"""How the devices compute on which a study runs."""

from study.worker.hardware import Hardware

A100 = Hardware(precision="bf16", devices=8, device_gib=79.2)
T4 = Hardware(precision="fp32", devices=1, device_gib=14.6)


def test_several_machines_do_what_each_of_them_can() -> None:
    assert Hardware.joint([A100]) == A100
    found = Hardware.joint([A100, T4])
    assert found == Hardware(precision="fp32", devices=9, device_gib=14.6)
    processors = Hardware(precision="bf16", devices=0, device_gib=0.0)
    assert Hardware.joint([processors, processors]) == processors and not processors.cuda
