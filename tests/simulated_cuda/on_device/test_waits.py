"""In a step the host waits for a device at these places and no others.

While it waits it gives the device nothing to do: a small model's step is then as slow as the host.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import pytest

from tests.simulated_cuda.waits import noted
from tests.trainables.conftest import OF_CLASSES, OWN, small
from tests.trainables.conftest import made_up as workload_of
from tests.trainables.training.trials import config
from trainables import registry
from trainables.errors import BadInput
from trainables.packing.trial_group import TrialGroup
from trainables.training.trial import Trial
from trainables.workload import Workload

LOSS = {
    # Whether a loss is finite decides if the trial goes on: once a step, and in a shared pass once
    # for all its trials.
    r"Trial\.step: a value read by the host": 1,
    r"TrialGroup\._advance: a copy to the host": 1,
}
MASKS = r"(_fuse|losses|losses_after): a value read by the host"
"""transformers looks whether a mask hides anything, and does without it if not: once or twice in
each stack of layers."""
IN_THREE = {
    # Positions in three dimensions are made on the host: see there.
    r"ImageTextToText\._positions: a copy": 3,
}
ENCODERS = r"(ImageTextToText\._encode|stages\.py: features): "
"""Image encoders of transformers' classes that make positions and windows from the number of
patches, or leave out images that are empty; the same in every batch."""
OF_CLASS = r"the backward pass: aten::masked_select"
"""The classes' own networks put images among words by ``masked_scatter``."""
BACKWARD = r"the backward pass"
DEEP = r"ImageTextToText\.losses: aten::(nonzero|index|_index_put_impl_)"
"""Qwen3-VL's network adds features of images to words by a mask, in its first layers too."""
METHODS = ("lora", "layernorm", "ia3", "bitfit")


def allowed(family: str) -> Mapping[str, int]:
    """Place and cause, as a pattern -> how many waits at most."""
    if family == "blip":  # it makes its masks itself
        return LOSS
    if "/" not in family:
        return {**LOSS, MASKS: 3}
    known = {**LOSS, MASKS: 8, **IN_THREE, ENCODERS: 40, OF_CLASS: 1}
    if family.endswith("/qwen3_vl"):
        return {**known, DEEP: 4, BACKWARD: 4}
    return {**known, BACKWARD: 2}


def check(found: Counter[tuple[str, str]], family: str) -> None:
    left = Counter({f"{place}: {why}": count for (place, why), count in found.items()})
    for pattern, most in allowed(family).items():
        here = {place: count for place, count in left.items() if re.search(pattern, place)}
        assert sum(here.values()) <= most, here
        left -= Counter(here)
    assert not left, left


def taking_steps(workload: Workload, method: str) -> Trial | None:
    """A trial after its first two steps, or None if the method trains nothing there."""
    try:
        trial = Trial(workload, config(workload, method))
    except BadInput:
        return None
    if not trial.applied.parameters:
        return None
    trial.step()
    trial.step()
    return trial


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(family, marks=[pytest.mark.by_hand] if family not in ("blip", "llava") else [])
        for family in (*OWN, *OF_CLASSES)
    ],
)
def device_workload(request: pytest.FixtureRequest) -> tuple[str, Workload]:
    return request.param, workload_of(small(request.param))


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=[pytest.mark.by_hand] if method != "lora" else [])
        for method in registry.METHODS.names()
    ],
)
def test_waits_of_a_step_alone(device_workload: tuple[str, Workload], method: str) -> None:
    family, workload = device_workload
    trial = taking_steps(workload, method)
    if trial is not None:
        with noted() as found:
            trial.step()
        check(found, family)


def test_waits_of_a_shared_pass(device_workload: tuple[str, Workload]) -> None:
    """A shared step has as many waits as a step of one trial, whatever the number of trials."""
    family, workload = device_workload
    group = TrialGroup(workload, places=8, trials_per_pass=8)
    for number, method in enumerate(METHODS * 2):
        try:
            group.enter(str(number), config(workload, method, seed=number))
        except BadInput:
            continue
        group.train_to(str(number), 10**6)
    group.step()
    group.step()
    with noted() as found:
        group.step()
    if not group.alone_reasons:
        check(found, family)
