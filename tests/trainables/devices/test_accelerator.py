"""The device that PyTorch finds, and what is asked of it. Runs on processors and, as a test of
``tests/simulated_cuda``, on simulated devices."""

from __future__ import annotations

import pytest
import torch

from trainables.devices import accelerator, kinds
from trainables.devices.kinds import SHARED, VARIABLE
from trainables.memory import measure
from trainables.seeding import seeded


def test_the_device_is_what_pytorch_finds() -> None:
    assert accelerator.accelerated() == torch.cuda.is_available()
    kind = "cuda" if accelerator.accelerated() else "cpu"
    assert accelerator.kind() == accelerator.current().type == kind
    found = accelerator.accelerators()
    assert len(found) == torch.cuda.device_count()
    assert all(device.name and device.gib > 0 for device in found)
    accelerator.synchronise()
    accelerator.choose(accelerator.current() if not found else torch.device("cuda:0"))


def test_its_memory_is_counted_where_pytorch_counts_it() -> None:
    assert accelerator.counts_memory() == accelerator.accelerated()
    with measure.measure_growth() as grown:
        some = torch.zeros(2**18, device=accelerator.current())  # 1 MiB
        del some
    assert 2**20 <= grown.size < 2**21
    if accelerator.counts_memory():
        measure.reset_peak()
        before = accelerator.peak_bytes()
        more = torch.zeros(2**18, device=accelerator.current())
        assert accelerator.peak_bytes() - before >= more.nbytes <= accelerator.allocated_bytes()
    accelerator.release_memory()


def test_generators_are_as_before_after_a_block() -> None:
    on = accelerator.current()
    torch.manual_seed(1)
    first = torch.rand(3), torch.rand(3, device=on)
    torch.manual_seed(1)
    with seeded("a", 1):
        inside = torch.rand(3, device=on)
    again = torch.rand(3), torch.rand(3, device=on)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with seeded("a", 1):
        assert torch.equal(torch.rand(3, device=on), inside)


@pytest.mark.parametrize(
    ("kind", "pins", "backend", "widest"),
    [
        ("cpu", False, "gloo", torch.float64),
        ("cuda", True, "nccl", torch.float64),
        ("xpu", False, "xccl", torch.float64),
        ("mps", False, "gloo", torch.float32),
    ],
)
def test_what_is_known_of_each_kind(
    kind: str, pins: bool, backend: str, widest: torch.dtype
) -> None:
    device = torch.device(kind)
    assert (accelerator.pins(device), kinds.backend(kind)) == (pins, backend)
    assert accelerator.widest(device) is widest


def test_a_device_that_was_tried_is_used_whatever_the_variable_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = accelerator.kind()
    monkeypatch.setenv(VARIABLE, "cpu")
    assert accelerator.kind() == usual and usual in ("cpu", *SHARED)
