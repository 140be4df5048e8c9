"""Each storage is recorded once, from its allocation until it is freed."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from trainables.memory.allocation_tracker import Allocations

KIB = 1024  # bytes of 256 floats


def total(allocations: Allocations, time: int) -> int:
    return sum(a.size for a in allocations.all if a.alive_at(time))


def test_each_storage_once_and_until_it_is_gone() -> None:
    with Allocations() as allocations:
        first = torch.ones(256)
        view = first.view(2, 128)[1:]
        first.add_(1)
        second = first + 1
        assert total(allocations, allocations.time) == 2 * KIB
        del first
        assert total(allocations, allocations.time) == 2 * KIB, "the view still needs it"
        del view
        assert total(allocations, allocations.time) == KIB
        del second
    assert total(allocations, allocations.time) == 0
    assert [a.size for a in allocations.all] == [KIB, KIB]


def test_the_peak_may_be_on_the_way() -> None:
    with Allocations() as allocations:
        allocations.label = "early"
        kept = torch.ones(256)
        allocations.label = "late"
        large = torch.ones(1024)
        del large
        more = kept + 1
    peak = allocations.peak()
    assert total(allocations, peak) == 5 * KIB
    assert {a.label for a in allocations.all if a.alive_at(peak)} == {"early", "late"}
    assert total(allocations, allocations.time) == 2 * KIB
    del more


def test_what_autograd_keeps_is_there_until_the_backward_pass() -> None:
    with Allocations() as allocations:
        weight = torch.ones(256, requires_grad=True)
        loss = (weight * 2).exp().sum()
        between = allocations.time
        loss.backward()
        del loss
    assert total(allocations, between) == 2 * KIB + 4, "weight, what exp gave, the loss"
    assert total(allocations, allocations.time) == 2 * KIB, "weight and its gradient"


def test_fake_tensors_take_as_much_as_real_ones() -> None:
    def work() -> Allocations:
        with Allocations() as allocations:
            layer = torch.nn.Linear(64, 64)
            layer(torch.ones(8, 64)).tanh().sum().backward()
        return allocations

    real = work()
    with FakeTensorMode():
        fake = work()
    assert [a.size for a in fake.all] == [a.size for a in real.all]
    assert total(fake, fake.peak()) == total(real, real.peak())


def test_it_can_be_paused() -> None:
    with Allocations() as allocations:
        with allocations.paused():
            torch.ones(256)
        assert allocations.all == []
        torch.ones(256)
    assert len(allocations.all) == 1
