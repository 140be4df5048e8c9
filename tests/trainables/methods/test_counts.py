"""How much each method trains, by its formula, in every slot of every family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.trainables.placed import fitting
from trainables import recipe
from trainables.errors import BadInput
from trainables.model_contract import Model, slot
from trainables.recipe import Recipe, Tuning
from trainables.weight_sharing import share_weights

Formula = Callable[[int, int], int]
"""Inputs and outputs of an adapted layer -> its trained parameters."""


def low_rank(rank: int) -> Formula:
    return lambda inputs, outputs: rank * (inputs + outputs)


@pytest.mark.parametrize(
    ("method", "settings", "formula"),
    [
        ("lora", {"rank": 4}, low_rank(4)),
        ("lora", {"rank": 4, "rank_stabilized": True, "lr_ratio": 16.0}, low_rank(4)),
        ("lora", {"rank": 4, "targets": "ffn"}, low_rank(4)),
        ("lora", {"rank": 4, "targets": "all"}, low_rank(4)),
        ("dora", {"rank": 4, "targets": "all"}, lambda i, o: low_rank(4)(i, o) + o),
        ("vera", {"rank": 7, "targets": "all"}, lambda _, o: 7 + o),
        ("dora", {"rank": 4}, lambda i, o: low_rank(4)(i, o) + o),
        ("vera", {"rank": 7}, lambda _, o: 7 + o),
        ("oft", {"block": 8}, lambda i, _: i // 8 * (8 * 7 // 2)),
        ("adapter", {"width": 5}, lambda _, o: o * 5 + 5 + 5 * o + o),
        ("adapter", {"width": 5, "targets": ["ffn_out"]}, lambda _, o: o * 5 + 5 + 5 * o + o),
    ],
)
def test_adapters(model: Model, method: str, settings: dict[str, Any], formula: Formula) -> None:
    tuning = Tuning.parse(method, settings)
    for name, alone in fitting(model, method, **settings).items():
        there = slot(model, model.network, name)
        layers = [n for role in tuning.config.targets for n in there.roles.get(role, ())]
        weights = [there.module.get_submodule(layer).get_parameter("weight") for layer in layers]
        network = share_weights(model.network)
        applied = recipe.apply(alone, model, network, seed=0)
        expected = sum(formula(weight.shape[1], weight.shape[0]) for weight in weights)
        assert applied.trained_parameters == expected > 0, name


def test_soft_tokens(model: Model) -> None:
    for name, alone in fitting(model, "prompt", tokens=3).items():
        there = slot(model, model.network, name)
        norm = there.module.get_submodule(there.roles["norm"][0])
        applied = recipe.apply(alone, model, share_weights(model.network), seed=0)
        assert applied.trained_parameters == 3 * norm.get_parameter("weight").numel(), name


def test_oft_refuses_blocks_that_do_not_fit(model: Model) -> None:
    (*_, last) = model.slots
    placed = Recipe.from_plain({last: {"method": "oft", "block": 7}})
    with pytest.raises(BadInput, match=rf"oft block 7 does not divide \d+, .* of slot '{last}'"):
        recipe.apply(placed, model, share_weights(model.network), seed=0)


@pytest.mark.parametrize("method", ["vera", "oft", "adapter"])
def test_only_linear_layers(model: Model, method: str) -> None:
    placed = Recipe.from_plain({"vision": {"method": method, "targets": ["patch"]}})
    with pytest.raises(BadInput, match=f"{method} is for linear layers, but .* is a Conv2d"):
        recipe.apply(placed, model, share_weights(model.network), seed=0)


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("vera", {"rank": 0}, "vera rank must be at least 1 but got 0"),
        ("vera", {"start": 0}, "vera start must be positive but got 0"),
        ("vera", {"dropout": 1}, r"vera dropout must be in \[0, 1\) but got 1"),
        ("oft", {"block": 1}, "oft block must be at least 2 but got 1"),
        ("adapter", {"width": 0}, "adapter width must be at least 1 but got 0"),
        ("prompt", {"tokens": 0}, "prompt tokens must be at least 1 but got 0"),
    ],
)
def test_settings_that_make_no_sense(method: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Tuning.parse(method, settings)
