"""What every method promises, on every model family; both join by being a file in their folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from search_spaces.declare import LogUniform, Uniform
from study.config import spaces
from study.config.spaces import SPACES
from tests.trainables.placed import everywhere, fitting
from trainables import recipe, registry
from trainables.engine.training_settings import TrainingSettings
from trainables.errors import BadInput, NoMatchingLayer
from trainables.methods.common.roles import ROLES
from trainables.model_contract import Model, Slot, slot
from trainables.recipe import Recipe, Tuning
from trainables.training.checkpoint import WEIGHTS
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.weight_sharing import share_weights
from trainables.workload import Workload

METHODS = registry.METHODS.names()


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def file(method: str) -> str:
    return f"trainables/methods/{method}.py"


def places(model: Model, method: str) -> Iterator[Recipe]:
    """The method in each slot alone that has its layers, then everywhere."""
    found = fitting(model, method)
    yield from found.values()
    if found:
        yield everywhere(model, method)


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


def test_the_output_is_unchanged_at_start(workload: Workload, method: str) -> None:
    """A method whose own definition does not allow it says why in ``CHANGES_AT_START``."""
    model, batch = workload.model, workload.batch("validation", range(8))
    base = model.losses(model.network, batch)
    why = getattr(registry.METHODS.find(method), "CHANGES_AT_START", None)
    for placed in places(model, method):
        network = share_weights(model.network)
        recipe.apply(placed, model, network, seed=1)
        losses = model.losses(network.eval(), batch)
        assert torch.isfinite(losses).all(), placed
        same = torch.equal(losses, base)
        assert same or why, (
            f"{method} in {', '.join(placed.slots)} changes the output before training: let what "
            "it adds start as zero or as the identity, or say in CHANGES_AT_START, a text at the "
            f"top of {file(method)}, why the method can't"
        )
        assert not (same and why), (
            f"{method} leaves the output as it was: remove CHANGES_AT_START from {file(method)}"
        )


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
        wanting = {n for n, p in network.named_parameters() if p.requires_grad}
        assert set(trained) == wanting, (
            f"apply of {file(method)} must return the name of every parameter that it trains "
            "(select.adapters gives the names of all that it added), but these differ: "
            f"{sorted(set(trained) ^ wanting)}"
        )
        trial.train(12)
        same_as_trained = {id(parameter) for parameter in trained.values()}
        for name, tensor in network.state_dict(keep_vars=True).items():
            if id(tensor) not in same_as_trained:
                assert torch.equal(tensor, before[name]), f"{placed}: {name} moved"
        assert any(not torch.equal(p, before[name]) for name, p in trained.items()), (
            f"nothing that {placed} trains has moved in three steps: the losses must depend on it"
        )
    after = workload.model.network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in base.items())
    assert base.keys() == after.keys()


def test_counts_are_of_what_is_trained(workload: Workload, method: str) -> None:
    for placed in places(workload.model, method):
        network = share_weights(workload.model.network)
        applied = recipe.apply(placed, workload.model, network, seed=0)
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        assert applied.trained_parameters == trained
        assert applied.total_parameters == sum(p.numel() for p in network.parameters())
        for count in applied.counts:
            assert (count.trained_parameters > 0) == (not count.tuning.startswith("frozen"))
            assert count.trained_layers <= count.total_layers
            reaches = count.trained_parameters > 0 and count.total_layers > 0
            assert (count.trained_layers > 0) == reaches
        named = {count.slot for count in applied.counts if not count.tuning.startswith("frozen")}
        assert named <= set(placed.slots) and bool(named) == bool(applied.parameters)


@pytest.mark.parametrize("limit", ["first:1", "last:1"])
def test_a_method_trains_in_the_layers_that_it_is_limited_to_alone(
    workload: Workload, method: str, limit: str
) -> None:
    """What it adds outside of all layers, like virtual tokens, is for these layers only."""
    model, batch = workload.model, workload.batch("validation", range(4))
    base = dict(model.network.named_parameters())
    for name, whole in fitting(model, method).items():
        there = slot(model, model.network, name)
        limited = Recipe.from_plain({name: {"method": method, "layers": limit}})
        network = share_weights(model.network)
        if "block" not in there.roles and method != "frozen":
            with pytest.raises(NoMatchingLayer, match=f"slot '{name}' has no block for layers="):
                recipe.apply(limited, model, network, seed=0)
        if "block" not in there.roles:
            continue
        try:
            applied = recipe.apply(limited, model, network, seed=0)
        except NoMatchingLayer:  # the layer has a linear attention
            assert len(there.roles["self_attention"]) < len(there.roles["block"])
            continue
        every = recipe.apply(whole, model, share_weights(model.network), seed=0)
        assert applied.trained_parameters <= every.trained_parameters
        block = there.roles["block"][0 if limit == "first:1" else -1]
        inside = f"{model.slots[name]}.{block}."
        own = {n for n in applied.parameters if n in base or ".base_layer." in n}
        assert all(n.startswith(inside) for n in own), (
            f"{method} with layers={limit} trains {sorted(own)[:3]}, outside of {inside}: it must "
            f"find its layers in slot.roles, by trainables.methods.common.select"
        )
        wrapped = [n for n, m in network.named_modules() if hasattr(m, "base_layer")]
        assert all(n.startswith(inside) for n in wrapped), wrapped
        with torch.no_grad():
            for parameter in applied.parameters.values():
                # Not the same for all: a norm takes away what is added to each value alike.
                added = torch.linspace(0.1, 0.2, parameter.numel()).view_as(parameter)
                parameter.add_(added.to(parameter))
            moved = model.losses(network.eval(), batch)
            assert torch.isfinite(moved).all()
            if applied.parameters:
                assert not torch.equal(moved, model.losses(model.network, batch))


def test_the_seed_decides_what_is_random(workload: Workload, method: str) -> None:
    model, batch = workload.model, workload.batch("validation", range(4))
    if not fitting(model, method):
        pytest.skip("every slot lacks its layers")
    placed, found = everywhere(model, method), []
    for seed, before in ((0, 1), (0, 2), (3, 2)):
        torch.manual_seed(before)
        network = share_weights(model.network)
        trained = recipe.apply(placed, model, network, seed=seed).parameters
        with torch.no_grad():
            for parameter in trained.values():
                parameter.add_(0.1)  # so that what starts at zero hides nothing
            found.append((trained, model.losses(network.eval(), batch)))
    (first, losses), (again, same_losses), _ = found
    assert all(torch.equal(first[name], again[name]) for name in first), (
        f"{method} draws initial values that are not torch's: they must depend on the seed alone"
    )
    assert torch.equal(losses, same_losses)


def test_a_slot_without_layers_for_it_is_refused(model: Model, method: str) -> None:
    """With what it has."""
    for name in set(model.slots) - set(fitting(model, method)):
        with pytest.raises(NoMatchingLayer, match=f"slot '{name}' has no .*: "):
            named = Recipe.from_plain({name: {"method": method}})
            recipe.apply(named, model, share_weights(model.network), seed=0)


def test_frozen_trains_nothing(model: Model) -> None:
    applied = recipe.apply(
        Recipe.from_plain({name: {"method": "frozen"} for name in model.slots}),
        model,
        share_weights(model.network),
        seed=0,
    )
    assert (applied.parameters, applied.trained_parameters, applied.trained_percent) == ({}, 0, 0)


def test_the_smallest_steps_move_a_bf16_base(
    family: str, made: Callable[..., Workload], method: str
) -> None:
    """All that is trained, within 100 steps at the smallest learning rate of any space: a bf16
    weight near 1 would swallow each of them."""
    workload = made(family, dtype=torch.bfloat16)
    if not fitting(workload.model, method):
        pytest.skip("every slot lacks its layers")
    undecayed = TrainingSettings(warmup=0, weight_decay=0)
    tiny_steps = {"lr": smallest_lr(), "training": undecayed, "batch_size": 1}
    placed = config(everywhere(workload.model, method), **tiny_steps)
    trial = Trial(workload, placed, precision="bf16")
    trained = trial.applied.parameters
    if not trained:
        return
    assert {p.dtype for p in trained.values()} == {torch.float32}
    start = trial.engine.trained_weights() if trial.engine else {}
    with_gradient: set[str] = set()
    for name, parameter in trained.items():
        note = noted(name, with_gradient)
        parameter.register_post_accumulate_grad_hook(note)
    still = set(trained)
    while still and trial.examples_seen < 100:
        trial.train(trial.examples_seen + 10)
        still = {name for name in still if torch.equal(trained[name].cpu(), start[name])}
    assert still == set(), f"within 100 of the smallest steps these did not move: {sorted(still)}"
    assert with_gradient == set(trained), (
        f"{method} trains what no loss depends on: {sorted(set(trained) - with_gradient)}"
    )


def smallest_lr() -> float:
    """Of all arms of all spaces that ship with the project."""
    ranges = [arm.lr for name in SPACES.names() for arm in spaces.load(name).arms.values()]
    return min(r.low if isinstance(r, Uniform | LogUniform) else r for r in ranges)


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
        assert all(torch.equal(saved[n], p.cpu()) for n, p in trial.applied.parameters.items())
        assert other.restore(tmp_path / str(i))
        assert all(torch.equal(saved[n], p.cpu()) for n, p in other.applied.parameters.items())
        assert other.validation_loss() == trial.validation_loss()


def test_a_slot_without_its_layers_is_refused(method: str) -> None:
    module = registry.METHODS.find(method)
    full = Slot(name="full", module=nn.Sequential(nn.Linear(2, 2)), roles={"query": ("0",)})
    empty = Slot(name="empty", module=nn.Sequential(nn.ReLU()), roles={})
    if method == "frozen":
        assert module.apply(full, module.Config()) == []
        return
    try:
        trained = module.apply(empty, module.Config())
    except BadInput as error:
        assert re.search(r"slot 'empty' has no .*: (none|ReLU)", str(error)), error
    else:
        pytest.fail(
            f"apply of {file(method)} returned {trained!r} for a slot without layers: it must find "
            "its layers with trainables.methods.common.select, which refuses such a slot, or raise "
            "select.nothing(slot, 'what it looks for')"
        )


def test_settings_are_checked(method: str) -> None:
    with pytest.raises(BadInput, match=f"unknown setting of method '{method}' 'bananas'"):
        Tuning.parse(method, {"bananas": 1})
    settings = Tuning.parse(method, {}).settings()
    assert "layers" not in settings, (
        f"the Config of {file(method)} must not have layers, a setting of every method"
    )
    for wrong in ("", "last", "last:0", "last:-1", "middle:2", "first:x", "8"):
        with pytest.raises(BadInput, match="layers must be 'all', or 'first:N' or 'last:N'"):
            Tuning.parse(method, {"layers": wrong})
    for name, default in {**settings, "layers": "all"}.items():
        assert Tuning.parse(method, {name: default}) == Tuning.parse(method, {})
        for wrong in (None, object(), {"a": 1}):
            with pytest.raises(BadInput, match=f"{method} {name} must be of type"):
                Tuning.parse(method, {name: wrong})


def test_layers_of_the_roles_are_adapted_and_no_other(model: Model, method: str) -> None:
    """By peft or by us: a layer that is adapted is the ``base_layer`` of another."""
    roles = {role for value in tuples(method).values() for role in value}
    for name, alone in fitting(model, method).items():
        network = share_weights(model.network)
        there = slot(model, network, name).roles
        expected = {layer for role in roles for layer in there.get(role, ())}
        recipe.apply(alone, model, network, seed=0)
        adapted = {
            layer
            for layer, module in network.get_submodule(model.slots[name]).named_modules()
            if hasattr(module, "base_layer")
        }
        wrapped = sorted(role for role, layers in there.items() if adapted & set(layers))
        assert adapted == expected, (
            f"{method} wraps layers of the roles {', '.join(wrapped) or 'none'} in slot {name!r}, "
            f"but the Config of {file(method)} names {', '.join(sorted(roles)) or 'none'}. A "
            "method that wraps layers has a setting for their roles, which a space can search, "
            f"like targets: tuple[str, ...] = {tuple(wrapped) or ('query', 'value')!r}; it wraps "
            "select.linear(slot, NAME, config.targets) or select.modules(slot, config.targets), "
            "all of them and no others, and keeps each original as base_layer. They differ in: "
            f"{', '.join(sorted(adapted ^ expected))}"
        )


def tuples(method: str) -> dict[str, tuple[str, ...]]:
    """The settings of a method that are tuples, which are of roles."""
    settings = Tuning.parse(method, {}).settings()
    return {name: value for name, value in settings.items() if isinstance(value, tuple)}


def test_every_role_of_a_config_exists(method: str) -> None:
    for name, value in tuples(method).items():
        assert set(value) <= set(ROLES), (
            f"{name} of the Config of {file(method)} must be a tuple of roles: {', '.join(ROLES)}"
        )
