"""What every method promises, on every model family. A method joins by being a file in its folder,
a family by its entry in ``SMALL`` (see ``conftest``)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables import recipe, registry
from trainables.errors import BadInput, NothingThere
from trainables.fork import fork
from trainables.methods import select
from trainables.models.contract import Model, Slot, slot
from trainables.recipe import Recipe, Tuning
from trainables.trial import WEIGHTS, Trial, TrialConfig
from trainables.workload import Workload

METHODS = registry.names(*registry.METHODS)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def places(model: Model, method: str) -> Iterator[Recipe]:
    """The method in each slot alone that has its layers, then everywhere."""
    for name in model.slots:
        alone = Recipe.of({name: {"method": method}})
        with contextlib.suppress(NothingThere):
            recipe.apply(alone, model, fork(model.network), seed=0)
            yield alone
    everywhere = {"method": method, "everywhere": True}
    yield Recipe.of(dict.fromkeys(model.slots, everywhere))


def config(recipe: Recipe, **settings: Any) -> TrialConfig:
    return TrialConfig(
        **{
            "recipe": recipe,
            "lr": 1e-2,
            "seed": 0,
            "max_examples": 1000,
            "batch_size": 4,
            **settings,
        }
    )


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


# --- What is trained, and what is not -------------------------------------------------------------


def test_the_output_is_unchanged_at_start(workload: Workload, method: str) -> None:
    """A method whose own definition does not allow it says why in ``CHANGES_AT_START``."""
    model, batch = workload.model, workload.batch("validation", range(8))
    base = model.losses(model.network, batch)
    why = getattr(registry.find("method", *registry.METHODS, method), "CHANGES_AT_START", None)
    for placed in places(model, method):
        network = fork(model.network)
        recipe.apply(placed, model, network, seed=1)
        losses = model.losses(network.eval(), batch)
        assert torch.isfinite(losses).all(), placed
        assert torch.equal(losses, base) == (why is None), f"{placed}; {why}"


def test_only_what_it_names_moves(workload: Workload, method: str) -> None:
    base = tensors(workload.model.network)
    for placed in places(workload.model, method):
        trial = Trial(workload, config(placed))
        network, trained = trial.losses.network, trial.applied.parameters
        before = tensors(network)
        if not trained:
            with pytest.raises(BadInput, match="trains nothing"):
                trial.train(12)
            continue
        assert set(trained) == {n for n, p in network.named_parameters() if p.requires_grad}
        trial.train(12)
        same_as_trained = {id(parameter) for parameter in trained.values()}
        for name, tensor in network.state_dict(keep_vars=True).items():
            if id(tensor) not in same_as_trained:
                assert torch.equal(tensor, before[name]), f"{placed}: {name} moved"
        assert any(not torch.equal(p, before[name]) for name, p in trained.items()), placed
    after = workload.model.network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in base.items())
    assert base.keys() == after.keys()


def test_counts_are_of_what_is_trained(workload: Workload, method: str) -> None:
    for placed in places(workload.model, method):
        network = fork(workload.model.network)
        applied = recipe.apply(placed, workload.model, network, seed=0)
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        assert applied.trained_parameters == trained
        assert applied.total_parameters == sum(p.numel() for p in network.parameters())
        for count in applied.counts:
            assert (count.trained_parameters > 0) == (not count.tuning.startswith("frozen"))
        named = {count.slot for count in applied.counts if not count.tuning.startswith("frozen")}
        assert named <= set(placed.slots) and bool(named) == bool(applied.parameters)


def test_frozen_trains_nothing(model: Model) -> None:
    applied = recipe.apply(
        Recipe.of({name: {"method": "frozen"} for name in model.slots}),
        model,
        fork(model.network),
        seed=0,
    )
    assert (applied.parameters, applied.trained_parameters, applied.trained_percent) == ({}, 0, 0)


# --- How it is trained ----------------------------------------------------------------------------


def test_small_steps_move_a_bf16_base(
    family: str, made: Callable[..., Workload], method: str
) -> None:
    """A bf16 weight near 1 would swallow hundreds of such steps. Here 20 suffice, in every slot."""
    workload = made(family, dtype=torch.bfloat16)
    *_, everywhere = places(workload.model, method)
    tiny_steps = config(everywhere, lr=1e-5, warmup=0, weight_decay=0, batch_size=2)
    trial = Trial(workload, tiny_steps, precision="bf16")
    trained = trial.applied.parameters
    if not trained:
        return
    assert {p.dtype for p in trained.values()} == {torch.float32}
    start = trial.engine.trained() if trial.engine else {}
    with_gradient: set[str] = set()
    for name, parameter in trained.items():
        note = noted(name, with_gradient)
        parameter.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
    trial.train(40)
    assert with_gradient == set(trained)
    assert [n for n, p in trained.items() if torch.equal(p, start[n])] == []


def noted(name: str, with_gradient: set[str]) -> Callable[[Tensor], None]:
    def note(parameter: Tensor) -> None:
        if parameter.grad is not None and parameter.grad.any():
            with_gradient.add(name)

    return note


def test_only_what_is_trained_is_saved_and_comes_back(
    workload: Workload, method: str, tmp_path: Path
) -> None:
    for i, placed in enumerate(places(workload.model, method)):
        trial, other = Trial(workload, config(placed)), Trial(workload, config(placed, seed=0))
        if not trial.applied.parameters:
            with pytest.raises(BadInput, match="trains nothing"):
                trial.save(tmp_path / str(i))
            continue
        trial.train(8)
        trial.save(tmp_path / str(i))
        (file,) = (tmp_path / str(i)).rglob(WEIGHTS)
        saved = load_file(file)
        assert saved.keys() == trial.applied.parameters.keys()
        assert all(torch.equal(saved[n], p) for n, p in trial.applied.parameters.items())
        assert other.restore(tmp_path / str(i))
        assert all(torch.equal(saved[n], p) for n, p in other.applied.parameters.items())
        assert other.validation_loss() == trial.validation_loss()


# --- What it refuses ------------------------------------------------------------------------------


def test_a_slot_without_its_layers_is_refused(method: str) -> None:
    module = registry.find("method", *registry.METHODS, method)
    full = Slot(name="full", module=nn.Sequential(nn.Linear(2, 2)), roles={"query": ("0",)})
    empty = Slot(name="empty", module=nn.Sequential(nn.ReLU()), roles={})
    if method == "frozen":
        assert module.apply(full, module.Config()) == []
        return
    with pytest.raises(BadInput, match=r"slot 'empty' has no .*: (none|ReLU)"):
        module.apply(empty, module.Config())


def test_a_selector_that_matches_nothing_names_what_there_is() -> None:
    there = Slot(name="vision", module=nn.Identity(), roles={"norm": ("a",), "query": ("b",)})
    with pytest.raises(
        BadInput, match="slot 'vision' has no layer of ffn_in, ffn_out; it has: norm"
    ):
        select.modules(there, ("ffn_in", "ffn_out"))
    with pytest.raises(BadInput, match="unknown role 'querry'; did you mean 'query'"):
        select.modules(there, ("norm", "querry"))


def test_settings_are_checked(method: str) -> None:
    with pytest.raises(BadInput, match=f"unknown setting of method '{method}' 'bananas'"):
        Tuning.of(method, {"bananas": 1})
    settings = Tuning.of(method, {}).settings()
    for name, default in settings.items():
        assert Tuning.of(method, {name: default}) == Tuning.of(method, {})
        for wrong in (None, object(), {"a": 1}):
            with pytest.raises(BadInput, match=f"{method} {name} must be of type"):
                Tuning.of(method, {name: wrong})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, "rank must be at least 1 but got 0"),
        ({"rank": True}, "rank must be of type int"),
        ({"rank": 4.5}, "rank must be of type int"),
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\) but got 1.5"),
        ({"alpha_per_rank": -1}, "alpha_per_rank must be positive but got -1"),
        ({"alpha_per_rank": float("nan")}, "alpha_per_rank must be finite but got nan"),
        ({"targets": "query"}, "targets must be of type tuple"),
        ({"rnak": 4}, "unknown setting of method 'lora' 'rnak'; did you mean 'rank'"),
    ],
)
def test_lora_refuses_what_makes_no_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Tuning.of("lora", settings)


# --- Methods of peft ------------------------------------------------------------------------------


def test_peft_adapts_the_layers_of_the_roles_and_no_other(model: Model, method: str) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    tuning = Tuning.of(method, {})
    settings = tuning.settings().values()
    roles = {role for value in settings if isinstance(value, tuple) for role in value}
    for name in model.slots:
        network = fork(model.network)
        there = slot(model, network, name).roles
        expected = {layer for role in roles for layer in there.get(role, ())}
        with contextlib.suppress(NothingThere):
            recipe.apply(Recipe(slots={name: tuning}), model, network, seed=0)
        adapted = {
            layer
            for layer, module in network.get_submodule(model.slots[name]).named_modules()
            if isinstance(module, BaseTunerLayer)
        }
        assert adapted == expected


def test_lora_is_of_the_rank_and_scale_it_says(model: Model) -> None:
    from peft.tuners.lora import LoraLayer

    network = fork(model.network)
    tuning = Tuning.of("lora", {"rank": 3, "alpha_per_rank": 4, "dropout": 0.25})
    recipe.apply(Recipe(slots={"decoder": tuning}), model, network, seed=0)
    layers = [module for module in network.modules() if isinstance(module, LoraLayer)]
    assert layers
    for layer in layers:
        assert (layer.r, layer.scaling) == ({"default": 3}, {"default": 4.0})
        assert layer.lora_dropout["default"].p == 0.25


def test_every_role_of_a_config_exists() -> None:
    from trainables.models.contract import ROLES

    for method in METHODS:
        config = Tuning.of(method, {}).config
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            assert not isinstance(value, tuple) or set(value) <= set(ROLES)
