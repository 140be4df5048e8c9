"""``lora`` with its options, and ``dora``: their formulas, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables import recipe
from trainables.engine.training_settings import TrainingSettings
from trainables.errors import BadInput, NoMatchingLayer
from trainables.methods.common.layers import band_of
from trainables.methods.common.roles import ATTENTION
from trainables.model_contract import Model, Slot, slot
from trainables.model_lookup import TINY
from trainables.models import blip
from trainables.recipe import AppliedRecipe, Recipe, Tuning
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.weight_sharing import share_weights
from trainables.workload import Workload


def applied(model: Model, method: str, **settings: Any) -> tuple[nn.Module, AppliedRecipe]:
    network = share_weights(model.network)
    (*_, last) = model.slots
    put = recipe.apply(
        Recipe.from_plain({last: {"method": method, **settings}}), model, network, seed=0
    )
    return network.eval(), put


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, "rank must be at least 1 but got 0"),
        ({"rank": True}, "rank must be of type int"),
        ({"rank": 4.5}, "rank must be of type int"),
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\) but got 1.5"),
        ({"rank": (4, 8)}, r"rank must be one value, or three for the first, .* but got \(4, 8\)"),
        ({"rank": (4, 8, 0)}, "rank must be at least 1 but got 0"),
        ({"rank": (4, 8, 2.5)}, "rank must be of type int"),
        ({"alpha_per_rank": (1, 2, -1)}, "alpha_per_rank must be positive but got -1"),
        ({"dropout": (0.1, 0.1, 0.1)}, "dropout must be of type float"),
        ({"alpha_per_rank": -1}, "alpha_per_rank must be positive but got -1"),
        ({"alpha_per_rank": float("nan")}, "alpha_per_rank must be finite but got nan"),
        ({"lr_ratio": 0}, "lr_ratio must be positive but got 0"),
        ({"rank_stabilized": 1}, "rank_stabilized must be of type bool"),
        ({"targets": 7}, "targets must be of type tuple"),
        ({"targets": "querry"}, "lora targets: unknown role 'querry'; did you mean 'query'"),
        ({"targets": "query,,value"}, "lora targets: unknown role ''"),
        ({"targets": ["atention"]}, "unknown role 'atention'; did you mean 'attention'"),
        ({"rnak": 4}, "unknown setting of method 'lora' 'rnak'; did you mean 'rank'"),
    ],
)
def test_lora_refuses_what_makes_no_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Tuning.parse("lora", settings)


@pytest.mark.parametrize(
    ("targets", "roles"),
    [
        ("query,value", ("query", "value", "qkv")),
        ("value+query", ("value", "query", "qkv")),
        (("query", "value"), ("query", "value")),
        ("query", ("query",)),
        ("attention", ATTENTION),
        ("ffn", ("ffn_in", "ffn_out")),
        (["query", "ffn"], ("query", "ffn_in", "ffn_out")),
        ("all", (*ATTENTION, "ffn_in", "ffn_out", "projection")),
        ("all,query", (*ATTENTION, "ffn_in", "ffn_out", "projection")),
    ],
)
def test_targets_are_named_by_role_or_group(targets: Any, roles: tuple[str, ...]) -> None:
    assert Tuning.parse("lora", {"targets": targets}).config.targets == roles


def test_a_text_of_targets_is_the_trial_that_its_roles_are() -> None:
    """So that a choice that names today's default gives the ids of today."""
    assert Tuning.parse("lora", {"targets": "query,value"}) == Tuning.parse("lora", {})
    tuning = Tuning.parse("lora", {"targets": "all", "rank": 4})
    assert str(tuning) == "lora(rank=4, targets=all)"
    recipe = Recipe(slots={"decoder": tuning})
    assert Recipe.from_plain(recipe.plain()) == recipe


@pytest.mark.parametrize("method", ["lora", "dora", "vera", "oft", "adapter"])
def test_all_is_every_linear_layer_of_the_blocks_and_connectors(model: Model, method: str) -> None:
    settings: dict[str, Any] = {"targets": "all"} | ({"block": 8} if method == "oft" else {})
    for name in model.slots:
        network = share_weights(model.network)
        recipe.apply(
            Recipe.from_plain({name: {"method": method, **settings}}), model, network, seed=0
        )
        there = slot(model, network, name)
        blocks = there.roles.get("block", ("",))
        for block in blocks:
            within = there.module.get_submodule(block)
            wrapped = [m for m in within.modules() if hasattr(m, "base_layer")]
            linear = [
                module
                for module in model.network.get_submodule(model.slots[name])
                .get_submodule(block)
                .modules()
                if isinstance(module, nn.Linear)
            ]
            assert len(wrapped) == len(linear) > 0, (name, block)


def test_lora_is_of_the_rank_and_scale_it_says(model: Model) -> None:
    from peft.tuners.lora import LoraLayer

    network, _ = applied(model, "lora", rank=3, alpha_per_rank=4, dropout=0.25)
    layers = [module for module in network.modules() if isinstance(module, LoraLayer)]
    assert layers
    for layer in layers:
        assert (layer.r, layer.scaling) == ({"default": 3}, {"default": 4.0})
        assert layer.lora_dropout["default"].p == 0.25


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_rank_and_alpha_by_band(method: str) -> None:
    """Four blocks: the first is first, two are in the middle, and the last is last; their middles
    lie at 1/8, 3/8, 5/8 and 7/8."""
    from peft.tuners.lora import LoraLayer

    model = blip.load(TINY)
    tuning = {"method": method, "rank": [2, 4, 8], "alpha_per_rank": [1, 2, 4], "targets": "all"}
    made = Recipe.from_plain({"vision": tuning})
    assert Recipe.from_plain(made.plain()) == made and made.plain()["vision"]["rank"] == [2, 4, 8]
    network = share_weights(model.network)
    recipe.apply(made, model, network, seed=0)
    there = slot(model, network, "vision")
    expected = ((2, 1.0), (4, 2.0), (4, 2.0), (8, 4.0))
    for block, (rank, factor) in zip(there.roles["block"], expected, strict=True):
        layers: list[Any] = [
            m for m in there.module.get_submodule(block).modules() if isinstance(m, LoraLayer)
        ]
        assert len(layers) == 4
        for layer in layers:
            assert (layer.r["default"], layer.scaling["default"]) == (rank, factor)
            assert len(layer.lora_A["default"].weight) == rank


def test_what_is_before_all_blocks_is_in_the_first_band_and_what_is_behind_in_the_last() -> None:
    module = nn.ModuleDict({"before": nn.Linear(1, 1)})
    module["blocks"] = nn.ModuleList(nn.Linear(1, 1) for _ in range(12))
    module["behind"] = nn.Linear(1, 1)
    blocks = tuple(f"blocks.{i}" for i in range(12))
    band = band_of(Slot(name="slot", module=module, roles={"block": blocks}))
    assert [band(name) for name in blocks] == [0] * 4 + [1] * 4 + [2] * 4
    assert (band("before"), band("behind")) == (0, 2)
    of_last = band_of(Slot(name="slot", module=module, roles={"block": blocks[-2:]}))
    assert [of_last(name) for name in blocks[-2:]] == [0, 2]
    with pytest.raises(NoMatchingLayer, match="slot 'slot' has no block for a setting by band"):
        band_of(Slot(name="slot", module=module, roles={}))


def test_rank_stabilized_divides_by_the_root_of_the_rank(model: Model) -> None:
    from peft.tuners.lora import LoraLayer

    network, _ = applied(model, "lora", rank=16, alpha_per_rank=2, rank_stabilized=True)
    layers = [module for module in network.modules() if isinstance(module, LoraLayer)]
    assert layers
    assert {layer.scaling["default"] for layer in layers} == {2 * 16 / 4}


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_the_ratio_is_that_of_the_steps_of_b(workload: Workload, method: str) -> None:
    """After one step, which Adam makes as long as the learning rate."""
    steps: dict[float, dict[str, Tensor]] = {}
    for ratio in (1.0, 8.0):
        (*_, last) = workload.model.slots
        config = TrialConfig(
            recipe=Recipe.from_plain({last: {"method": method, "lr_ratio": ratio}}),
            lr=1e-3,
            seed=0,
            max_examples=1000,
            batch_size=4,
            training=TrainingSettings(weight_decay=0, warmup=0),
        )
        trial = Trial(workload, config)
        before = {n: p.detach().clone() for n, p in trial.applied.parameters.items()}
        trial.train(4)
        steps[ratio] = {n: p.detach() - before[n] for n, p in trial.applied.parameters.items()}
        factors = trial.applied.lr_factors
        assert {factors[name] for name in before if ".lora_B." in name} == {ratio}
        assert {factors[name] for name in before if ".lora_B." not in name} == {1.0}
    for name, step in steps[1.0].items():
        moved = ".lora_B." in name
        torch.testing.assert_close(steps[8.0][name], step * (8 if moved else 1))
        assert step.any() == (moved or ".lora_magnitude_vector." in name)


def test_dora_is_what_the_paper_says(model: Model) -> None:
    """m (W + factor B A) / |W + factor B A|, a norm for each output."""
    from peft.tuners.lora import LoraLayer

    network, _ = applied(model, "dora", rank=4, alpha_per_rank=2)
    layer: Any = next(module for module in network.modules() if isinstance(module, LoraLayer))
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:  # the others are the shared model's
                parameter.add_(torch.randn_like(parameter))
        x_BD = torch.randn(5, layer.in_features).to(layer.base_layer.weight)
        update = 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        weight = layer.base_layer.weight + update
        weight *= (layer.lora_magnitude_vector["default"].weight / weight.norm(dim=1))[:, None]
        expected_BD = nn.functional.linear(x_BD, weight, layer.base_layer.bias)
        torch.testing.assert_close(layer(x_BD), expected_BD, rtol=1e-4, atol=1e-4)


def test_dora_is_unchanged_at_start_on_a_bf16_base(made: Any, family: str) -> None:
    """The norms are taken in fp32: in bf16 they would be off by up to a part in 256."""
    model = made(family, dtype=torch.bfloat16).model
    plain, tuned = model.network, applied(model, "dora")[0]
    from peft.tuners.lora import LoraLayer

    layers = [(n, m) for n, m in tuned.named_modules() if isinstance(m, LoraLayer)]
    assert layers
    for name, layer in layers:
        x_BD = torch.randn(5, layer.in_features).to(layer.base_layer.weight)
        with torch.no_grad():
            assert torch.equal(layer(x_BD), plain.get_submodule(name)(x_BD))


def test_dora_errors_are_of_dora() -> None:
    with pytest.raises(BadInput, match="dora rank must be at least 1 but got 0"):
        Tuning.parse("dora", {"rank": 0})
