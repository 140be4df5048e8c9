"""Trials that share a pass do without the keys and values that each would do without alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainables.conftest import WORDS, made_up
from tests.trainables.models.small import blip
from tests.trainables.packing.trials import METHODS
from trainables.models.common.attention import TextAttention
from trainables.packing.trial_group import TrialGroup
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


@pytest.mark.parametrize("family", ["blip"], scope="session", indirect=True)
def test_whatever_is_tuned(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are those of keys and values that are made, alone and in a pass that trials share."""

    def config(method: str, **settings: Any) -> TrialConfig:
        tuning = {"method": method, "everywhere": True, **settings}
        recipe = Recipe.from_plain(dict.fromkeys(workload.model.slots, tuning))
        return TrialConfig(recipe=recipe, lr=3e-3, seed=0, max_examples=32, batch_size=4)

    configs = {method: config(method) for method in METHODS}
    configs["dropping"] = config("lora", dropout=0.3)
    found: dict[bool, list[dict[str, float]]] = {}
    used = []
    usual = TextAttention._look
    monkeypatch.setattr(TextAttention, "_look", lambda *args: used.append(1) or usual(*args))
    for none in (False, True):
        monkeypatch.setattr(
            TextAttention,
            "_spares",
            lambda self, *_, none=none: none and self._is_affine(self.key),
        )
        lane = TrialGroup(workload, places=len(configs))
        for key, settings in configs.items():
            lane.enter(key, settings)
            lane.train_to(key, 12)
        packed = {arrival.key: arrival.train_loss for _ in range(3) for arrival in lane.step()}
        alone = {key: Trial(workload, settings).train(12) for key, settings in configs.items()}
        found[none] = [packed, alone]
        assert bool(used) == none
    for made, spared in zip(found[False], found[True], strict=True):
        assert spared == pytest.approx(made, rel=1e-5)


def test_trials_that_share_a_pass_spare_each_what_it_would_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the others do to keys and values: the arithmetic is that of all alone."""
    monkeypatch.setattr(TextAttention, "_spares", lambda self, *_: self._is_affine(self.key))
    workload = made_up(blip.small(WORDS, patch=2))
    tunings: list[dict[str, Any]] = [{"method": method} for method in ("layernorm", "ia3", "lora")]
    tunings += [{"method": "dora"}, {"method": "lora", "targets": ("key", "value"), "rank": 4}]
    recipes = [
        Recipe.from_plain({slot: {**tuning, "everywhere": True} for slot in ("fusion", "decoder")})
        for tuning in tunings
    ]

    def multiplied(recipes: list[Recipe]) -> int:
        lane = TrialGroup(workload, places=len(recipes))
        for n, recipe in enumerate(recipes):
            config = TrialConfig(recipe=recipe, lr=3e-3, seed=0, max_examples=32, batch_size=4)
            lane.enter(str(n), config)
            lane.train_to(str(n), 4)
        assert not lane.alone_reasons
        return products(lane.step)

    assert multiplied(recipes) < 1.1 * sum(multiplied([recipe]) for recipe in recipes)


class Products(TorchDispatchMode):
    """Counts what is multiplied in products of matrices."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            left, right = args[-2:]
            self.count += left.numel() * right.shape[-1]
        return func(*args, **(kwargs or {}))


def products(step: Callable[[], object]) -> int:
    with Products() as counted:
        step()
    return counted.count
