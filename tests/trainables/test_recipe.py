"""Recipes are made from JSON-ready values and back, shown as text, and put into a network."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from tests.trainables.conftest import SMALL
from trainables import registry
from trainables.errors import BadInput
from trainables.methods.common.younger_setting import younger
from trainables.model_contract import Model
from trainables.models.blip import Blip
from trainables.recipe import Recipe, Tuning, apply
from trainables.weight_sharing import share_weights

PER_SLOT: dict[str, dict[str, Any]] = {
    "vision": {"method": "frozen"},
    "fusion": {"method": "full"},
    "decoder": {"method": "lora", "rank": 4, "targets": ["query"]},
}


def test_plain_values_come_back_with_the_defaults() -> None:
    plain = Recipe.from_plain(PER_SLOT).plain()
    assert plain["decoder"] == {
        "method": "lora",
        "rank": 4,
        "alpha_per_rank": 2.0,
        "dropout": 0.0,
        "targets": ["query"],
        "rank_stabilized": False,
        "lr_ratio": 1.0,
    }
    assert json.loads(json.dumps(plain)) == plain
    assert Recipe.from_plain(plain) == Recipe.from_plain(PER_SLOT)
    assert Recipe.from_plain(plain).plain() == plain


@pytest.mark.parametrize(
    ("slots", "text"),
    [
        (PER_SLOT, "vision=frozen, fusion=full, decoder=lora(rank=4, targets=('query',))"),
        ({"vision": {"method": "lora"}, "fusion": {"method": "lora"}}, "lora"),
        ({"vision": {"method": "lora", "rank": 2}}, "lora(rank=2)"),
    ],
)
def test_a_recipe_reads_well(slots: dict[str, dict[str, Any]], text: str) -> None:
    assert str(Recipe.from_plain(slots)) == text


def test_a_misspelt_method_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown method 'layernrom'; did you mean 'layernorm'"):
        Tuning.parse("layernrom", {})


def test_everywhere_leaves_a_slot_without_such_layers_frozen_and_says_so() -> None:
    """LLaVA's connector has no norm, its Llama no bias."""
    model = SMALL["llava"]()
    for method, expected in {
        "layernorm": ("layernorm", "frozen (no norm)", "layernorm"),
        "bitfit": ("bitfit", "bitfit", "frozen (no bias)"),
        "lora": ("lora", "frozen (no query, value, qkv)", "lora"),
    }.items():
        tuning = {"method": method, "everywhere": True}
        recipe = Recipe.from_plain(dict.fromkeys(model.slots, tuning))
        assert Recipe.from_plain(recipe.plain()) == recipe
        assert str(recipe) == method
        applied = apply(recipe, model, share_weights(model.network), seed=0)
        assert tuple(count.tuning for count in applied.counts) == expected
        for count in applied.counts:
            assert (count.trained_parameters == 0) == count.tuning.startswith("frozen")


def test_nothing_anywhere_and_nothing_in_a_slot_that_was_named_are_errors() -> None:
    model = SMALL["llava"]()
    tuning = {"method": "lora", "targets": ["qkv"]}
    everywhere = Recipe.from_plain({slot: {**tuning, "everywhere": True} for slot in model.slots})
    named = Recipe.from_plain({"vision": {"method": "full"}, "connector": {"method": "layernorm"}})
    for recipe, said in (
        (everywhere, "slot 'vision' has no layer of qkv; it has: "),
        (named, "slot 'connector' has no layer of norm; it has: projection"),
    ):
        with pytest.raises(BadInput, match=said):
            apply(recipe, model, share_weights(model.network), seed=0)


def test_layers_join_a_recipe_off_their_default_only() -> None:
    plain = Recipe.from_plain({"decoder": {"method": "layernorm", "layers": "all"}}).plain()
    assert plain == {"decoder": {"method": "layernorm"}}
    limited = Recipe.from_plain({"decoder": {"method": "lora", "rank": 4, "layers": "last:2"}})
    assert limited.plain()["decoder"]["layers"] == "last:2"
    assert Recipe.from_plain(limited.plain()) == limited
    assert str(limited) == "lora(rank=4, layers=last:2)"


def test_a_setting_that_is_added_to_a_method_changes_no_id_at_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Recipe.from_plain({"decoder": {"method": "layernorm"}}).plain()
    module = registry.METHODS.find("layernorm")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(module.Config):  # type: ignore[misc, name-defined]  # a plug-in's
        added: float = younger(0.5)

    monkeypatch.setattr(module, "Config", Config)
    assert Recipe.from_plain({"decoder": {"method": "layernorm"}}).plain() == before
    given = {"decoder": {"method": "layernorm", "added": 0.25}}
    assert Recipe.from_plain(given).plain()["decoder"]["added"] == 0.25


def test_a_slot_may_have_a_learning_rate_of_its_own_in_units_of_the_trials(model: Model) -> None:
    last = [*model.slots][-1]
    plain = {last: {"method": "lora", "lr_ratio": 4.0, "lr_scale": 0.5}}
    recipe = Recipe.from_plain(plain)
    assert recipe.plain()[last]["lr_scale"] == 0.5
    assert str(recipe.slots[last]) == "lora(lr_ratio=4.0, lr_scale=0.5)"
    applied = apply(recipe, model, share_weights(model.network), seed=0)
    assert {*applied.lr_factors.values()} == {0.5, 2.0}
    usual = Recipe.from_plain({last: {"method": "lora", "lr_scale": 1}})
    assert usual.plain() == Recipe.from_plain({last: {"method": "lora"}}).plain()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "lora lr_scale must be positive but got 0"),
        (-2, "lora lr_scale must be positive but got -2"),
        (float("inf"), "lora lr_scale must be finite but got inf"),
        ("1", "lora lr_scale must be of type float"),
    ],
)
def test_a_learning_rate_that_no_slot_can_have_is_refused(value: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Recipe.from_plain({"decoder": {"method": "lora", "lr_scale": value}})


@pytest.mark.parametrize("method", ["lora", "full", "bitfit", "prompt"])
def test_more_layers_than_there_are_is_an_error_that_says_how_many_there_are(method: str) -> None:
    model = SMALL["blip"]()
    tuning = {"method": method, "layers": "last:3", "everywhere": True}
    with pytest.raises(BadInput, match="slot 'vision' has 2 layers, fewer than last:3 names"):
        apply(Recipe.from_plain({"vision": tuning}), model, share_weights(model.network), seed=0)


def test_layers_with_nothing_to_train_are_an_error_that_names_what_there_is() -> None:
    model = SMALL["llava"]()
    named = Recipe.from_plain({"connector": {"method": "full", "layers": "first:1"}})
    with pytest.raises(BadInput, match="slot 'connector' has no block for layers=first:1; it has:"):
        apply(named, model, share_weights(model.network), seed=0)
    tuning = {"method": "layernorm", "layers": "last:1", "everywhere": True}
    everywhere = Recipe.from_plain(dict.fromkeys(model.slots, tuning))
    applied = apply(everywhere, model, share_weights(model.network), seed=0)
    assert [count.tuning for count in applied.counts] == [
        "layernorm(layers=last:1)",
        "frozen (no block)",
        "layernorm(layers=last:1)",
    ]


def test_slots_are_counted_one_by_one(model: Model) -> None:
    applied = apply(
        Recipe.from_plain({"decoder": {"method": "full"}}),
        model,
        share_weights(model.network),
        seed=0,
    )
    for count in applied.counts:
        whole = sum(
            p.numel() for p in model.network.get_submodule(model.slots[count.slot]).parameters()
        )
        assert count.total_parameters == whole
        assert count.trained_parameters == (whole if count.slot == "decoder" else 0)
        assert count.tuning == ("full" if count.slot == "decoder" else "frozen")
    assert [count.slot for count in applied.counts] == list(model.slots)
    assert applied.trained_percent == pytest.approx(
        100 * applied.trained_parameters / sum(p.numel() for p in model.network.parameters())
    )


def test_adapters_are_counted_in_the_total(model: Model) -> None:
    base = sum(parameter.numel() for parameter in model.network.parameters())
    applied = apply(
        Recipe.from_plain({"decoder": {"method": "lora"}}),
        model,
        share_weights(model.network),
        seed=0,
    )
    assert applied.total_parameters == base + applied.trained_parameters


def test_tied_embeddings_stay_tied_and_count_once(model: Model) -> None:
    network = share_weights(model.network)
    everywhere = Recipe.from_plain({slot: {"method": "full"} for slot in model.slots})
    applied = apply(everywhere, model, network, seed=0)
    base = sum(parameter.numel() for parameter in model.network.parameters())
    assert applied.total_parameters == base
    assert applied.trained_parameters == sum(count.total_parameters for count in applied.counts)
    names: dict[int, list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    tied = [group for group in names.values() if len(group) > 1]
    tied_in_base: dict[int, list[str]] = {}
    for name, tensor in model.network.state_dict(keep_vars=True).items():
        tied_in_base.setdefault(id(tensor), []).append(name)
    assert tied or not isinstance(model, Blip)  # LLaMA has a head of its own
    assert tied == [group for group in tied_in_base.values() if len(group) > 1]


def test_the_seed_decides_adapters_alone(model: Model) -> None:
    def adapters(slots: tuple[str, ...], seed: int) -> dict[str, torch.Tensor]:
        recipe = Recipe.from_plain({slot: {"method": "lora"} for slot in slots})
        return dict(apply(recipe, model, share_weights(model.network), seed=seed).parameters)

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = adapters(("vision", "decoder"), 0)
    assert torch.equal(torch.random.get_rng_state(), before), "torch's generator is left alone"
    torch.manual_seed(2)
    again, alone, other = (
        adapters(("decoder", "vision"), 0),
        adapters(("decoder",), 0),
        adapters(("decoder",), 1),
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], alone[name]) for name in alone)
    assert any(not torch.equal(alone[name], other[name]) for name in alone)
