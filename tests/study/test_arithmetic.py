"""How the devices compute on which a study runs."""

from study.arithmetic import Arithmetic

A100 = Arithmetic(precision="bf16", devices=8, device_gib=79.2)
T4 = Arithmetic(precision="fp32", devices=1, device_gib=14.6)


def test_several_machines_do_what_each_of_them_can() -> None:
    assert Arithmetic.joint([A100]) == A100
    found = Arithmetic.joint([A100, T4])
    assert found == Arithmetic(precision="fp32", devices=9, device_gib=14.6)
    processors = Arithmetic(precision="bf16", devices=0, device_gib=0.0)
    assert Arithmetic.joint([processors, processors]) == processors and not processors.cuda
