"""A pass that trials share computes and keeps no more than it must."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainables.packing.trials import config, suits
from trainables.memory.measure import measure_growth, release_cached
from trainables.packing.trial_group import TrialGroup
from trainables.training.trial import Trial
from trainables.workload import Workload


def test_a_base_product_runs_once_for_all(workload: Workload) -> None:
    """A product for each trial would make packing useless."""
    model = workload.model
    group = TrialGroup(workload, places=4)
    methods = ("layernorm", "lora", "ia3")
    for method in methods:
        group.enter(method, config(model, method, frozen=len(model.stages)))
        group.train_to(method, 4)
    calls, usual = [], torch.nn.functional.linear
    frozen = {p.data_ptr() for p in model.network.parameters() if p.ndim == 2}

    def counting(x: Any, weight: Any, bias: Any = None) -> Any:
        calls.append(weight.data_ptr())
        return usual(x, weight, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", counting)
        group.step()
    products = [pointer for pointer in calls if pointer in frozen]
    assert len(products) == len(set(products)) > 0


@pytest.mark.parametrize("tuning", [{"method": "layernorm"}, {"method": "lora"}, {"method": "ia3"}])
def test_a_pass_is_as_many_operations_however_many_trials(
    workload: Workload, tuning: dict[str, Any]
) -> None:
    """Each operation is a small kernel on a GPU, so their number counts. Ranks may differ."""

    def operations(trials: int) -> int:
        group = TrialGroup(workload, places=trials)
        for n in range(trials):
            ranks = {"rank": 2 + n} if tuning["method"] == "lora" else {}
            frozen = len(workload.model.stages)
            group.enter(
                str(n), config(workload.model, tuning=tuning | ranks, seed=n, frozen=frozen)
            )
        members = [
            member.pack_member
            for member in group._members.values()
            if member.pack_member is not None
        ]
        group._pack.backward(members)
        with Operations() as counted:
            group._pack.backward(members)
        return counted.count

    # What is left for each: the mean of its losses, and a copy of a gradient that lies otherwise.
    assert operations(6) < 1.3 * operations(3)


@pytest.mark.parametrize("method", ["layernorm", "bitfit", "lora", "ia3", "ptv2"])
def test_a_pass_takes_no_more_memory_than_its_trials_alone(workload: Workload, method: str) -> None:
    """Placement counts on it: what a trial adds to a device is what it takes alone."""

    def grown(trials: int) -> int:
        release_cached()  # or what goes meanwhile would be subtracted
        with measure_growth() as found:
            group = TrialGroup(workload, places=trials)
            for n in range(trials):
                group.enter(str(n), config(workload.model, method, batch_size=16))
                group.train_to(str(n), 16)
            group.step()
        assert not group.alone_reasons
        return found.size

    if suits(workload, config(workload.model, method)):
        assert grown(5) < 5.25 * grown(1)


class Operations(TorchDispatchMode):
    """Counts the operations that compute something."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or "empty" in func.__name__)
        return func(*args, **(kwargs or {}))


def test_no_gradient_below_what_is_trained(workload: Workload) -> None:
    """Neither alone nor packed is anything kept for a backward pass that nobody needs."""
    model = workload.model
    first = model.network.get_submodule(model.slots[next(iter(model.slots))])
    seen: list[bool] = []

    def see(_: nn.Module, __: Any, out: Any) -> None:
        tensors = [out] if isinstance(out, Tensor) else out.values()
        seen.append(any(tensor.requires_grad for tensor in tensors))

    handle = first.register_forward_hook(see)  # a fork's module keeps the hook
    try:
        group = TrialGroup(workload, places=3)
        group.features.refused[1] = "no room, says this test"
        for method in ("lora", "layernorm"):
            group.enter(method, config(model, method, frozen=1))
            group.train_to(method, 4)
        seen.clear()
        group.step()
        Trial(workload, config(model, "lora", frozen=1)).step()
        assert seen and not any(seen)
        Trial(workload, config(model, "lora")).step()
        assert seen[-1]
    finally:
        handle.remove()


def test_who_left_is_not_held(workload: Workload) -> None:
    group = TrialGroup(workload, places=2)
    for key in ("a", "b"):
        group.enter(key, config(workload.model, "lora"))
        group.train_to(key, 4)
    group.step()
    gone = weakref.ref(next(iter(group.trial("a").applied.parameters.values())))
    group.leave("a")
    gc.collect()
    assert gone() is None
