"""Exact: a trial's losses are the same alone, packed with others of other methods, with frozen
features, or restored.

How near: fp32 within 1e-5 of the loss (what is measured is 1e-7, the rounding of a product over
other rows). bf16 within 1e-2: one of its roundings is 4e-3.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainables import registry
from trainables.errors import BadInput
from trainables.memory.measure import measure_growth, release_cached
from trainables.model_contract import Model
from trainables.packing.pack import Pack
from trainables.packing.trial_group import Arrival, TrialGroup
from trainables.recipe import Recipe
from trainables.training.regime import Regime
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

RELATIVE = {"fp32": 1e-5, "bf16": 1e-2}
METHODS = [name for name in registry.METHODS.names() if name != "frozen"]
PACKED = {"attention", "bitfit", "ffn", "ia3", "layernorm", "lora", "prefix", "ptv2"}
"""Must not step alone; a method that is not here may, and then is exact for that."""


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache folder of the tests, so that frozen features do not land in the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def config(model: Model, method: str = "", *, frozen: int = 0, **settings: Any) -> TrialConfig:
    """Configuration with a method in all slots that can have it but those of ``frozen`` stages."""
    tuning = {"method": method, "everywhere": True, **settings.pop("tuning", {})}
    still = {slot for stage in model.stages[:frozen] for slot in stage.slots}
    return TrialConfig(
        **{
            "recipe": Recipe.of({slot: tuning for slot in model.slots if slot not in still}),
            "lr": 3e-3,
            "seed": 0,
            "max_examples": 64,
            "batch_size": 4,
            **settings,
        }
    )


def suits(workload: Workload, settings: TrialConfig) -> bool:
    try:
        Trial(workload, settings)
    except BadInput:  # a Llama-like decoder has no bias
        return False
    return True


def mixed(workload: Workload, frozen: int, sizes: tuple[int, ...]) -> dict[str, TrialConfig]:
    """Trials of every method, with batches of those sizes, ranks and seeds of their own."""
    model = workload.model
    configs = {
        name: config(model, name, frozen=frozen, seed=n, batch_size=sizes[n % len(sizes)])
        for n, name in enumerate(METHODS)
    }
    configs["lora 3, dropping"] = config(
        model, "lora", frozen=frozen, tuning={"rank": 3, "dropout": 0.3}, seed=40
    )
    configs["another lora 3"] = config(model, "lora", frozen=frozen, tuning={"rank": 3}, seed=41)
    return {key: c for key, c in configs.items() if suits(workload, c)}


def arrivals(group: TrialGroup, steps: int = 12) -> Iterator[Arrival]:
    """Step until all trials have arrived."""
    for _ in range(steps):
        yield from group.step()


@pytest.mark.parametrize(
    ("left", "precision", "sizes"),
    [
        ("nothing", "fp32", (3, 4, 4)),
        ("the image", "fp32", (4,)),
        ("all but the last slot", "fp32", (3, 4, 4)),
        ("the image", "bf16", (4,)),
    ],
)
def test_packed_as_alone(
    workload: Workload, left: str, precision: str, sizes: tuple[int, ...]
) -> None:
    """Every method side by side with every other, whatever is frozen below; with batches of one
    size, where what trials add is computed together, and of several."""
    stages = workload.model.stages
    frozen = {"nothing": 0, "the image": 1, "all but the last slot": len(stages)}[left]
    configs = mixed(workload, frozen, sizes)
    group = TrialGroup(workload, precision=precision, places=len(configs))
    for key, settings in configs.items():
        group.enter(key, settings)
        group.train_to(key, 8)
    losses = {arrival.key: arrival.train_loss for arrival in arrivals(group)}
    assert not PACKED & set(group.alone_reasons), group.alone_reasons
    assert "another lora 3" not in group.alone_reasons
    if workload.model.slots.keys() == {"vision", "fusion", "decoder"}:
        # A decoder that reads image, question and answer in a row can't tell padding by its length.
        assert "lora 3, dropping" not in group.alone_reasons
    for key, settings in configs.items():
        alone = Trial(workload, settings, precision=precision)
        near = RELATIVE[precision]
        assert losses[key] == pytest.approx(alone.train(8), rel=near), key
        packed = group.trial(key)
        assert packed.features_done == frozen or key in group.alone_reasons
        assert packed.validation_loss() == pytest.approx(alone.validation_loss(), rel=near), key


PLACED: dict[str, dict[str, Any]] = {
    "all": {"method": "lora", "targets": "all"},
    "attention": {"method": "lora", "targets": "attention", "rank": 3},
    "ffn": {"method": "lora", "targets": "ffn"},
    "by band": {"method": "lora", "rank": (2, 3, 5), "alpha_per_rank": (1, 2, 4)},
    "all by band": {"method": "lora", "rank": (2, 3, 5), "targets": "all", "dropout": 0.3},
    "last layer": {"method": "lora", "layers": "last:1"},
    "first layer": {"method": "layernorm", "layers": "first:1"},
    "tokens in one layer": {"method": "ptv2", "layers": "last:1"},
    "whole layer": {"method": "full", "layers": "last:1"},
    "scales": {"method": "ia3", "targets": "attention"},
    "usual": {"method": "lora"},
}
"""Trials that train in other layers of a slot than others do, or more of some than of others."""


@pytest.mark.parametrize(("frozen", "precision"), [(0, "fp32"), (1, "bf16")])
def test_wherever_in_a_slot_a_trial_trains_it_is_packed_as_alone(
    workload: Workload, frozen: int, precision: str
) -> None:
    model = workload.model
    configs = {
        key: config(model, tuning=tuning, frozen=frozen, seed=seed)
        for seed, (key, tuning) in enumerate(PLACED.items())
    }
    group = TrialGroup(workload, precision=precision, places=len(configs))
    for key, settings in configs.items():
        group.enter(key, settings)
        group.train_to(key, 8)
    losses = {arrival.key: arrival.train_loss for arrival in arrivals(group)}
    assert not {*group.alone_reasons} - {"whole layer", "all by band"}, group.alone_reasons
    for key, settings in configs.items():
        alone, near = Trial(workload, settings, precision=precision), RELATIVE[precision]
        assert losses[key] == pytest.approx(alone.train(8), rel=near), key
        assert group.trial(key).validation_loss() == pytest.approx(
            alone.validation_loss(), rel=near
        ), key


def test_who_would_draw_other_masks_steps_alone(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pack, "_draws_as_alone", False)
    group = TrialGroup(workload, places=2)
    group.enter("dropping", config(workload.model, "lora", tuning={"dropout": 0.3}))
    group.enter("not", config(workload.model, "lora"))
    assert group.alone_reasons == {"dropping": "its dropout would draw other masks than alone"}


def test_labels_are_smoothed_in_a_pass_as_alone(workload: Workload) -> None:
    """Trials of several regimes, which one study never has, share no pass."""
    model, group = workload.model, TrialGroup(workload, places=4)
    configs = {
        f"{method} {smoothing}": config(
            model, method, seed=seed, regime=Regime(label_smoothing=smoothing)
        )
        for method in ("lora", "layernorm")
        for seed, smoothing in enumerate((0.1, 0.0))
    }
    for key, settings in configs.items():
        group.enter(key, settings)
        group.train_to(key, 8)
    losses = {arrival.key: arrival.train_loss for arrival in arrivals(group)}
    for key, settings in configs.items():
        assert losses[key] == pytest.approx(Trial(workload, settings).train(8), rel=1e-5), key


def test_coming_going_and_restored_in_the_midst_of_others(
    workload: Workload, tmp_path: Path
) -> None:
    model = workload.model
    watched = config(model, "lora", tuning={"dropout": 0.3}, max_examples=40)
    alone = Trial(workload, watched)
    expected = [alone.train(8), alone.train(20), alone.train(40)]
    group = TrialGroup(workload, places=4)
    for n, method in enumerate(("layernorm", "ia3", "ptv2")):
        group.enter(method, config(model, method, seed=n))
        group.train_to(method, (n + 2) * 4)
    group.enter("watched", watched)
    found = []
    for until in (8, 20, 40):
        group.train_to("watched", until)
        steps = (until - group.trial("watched").examples_seen) // 4
        for arrival in arrivals(group, steps):
            if arrival.key == "watched":
                found.append(arrival.train_loss)
            else:  # back-filled at once
                group.leave(arrival.key)
                group.enter(arrival.key, config(model, "lora", seed=5))
                group.train_to(arrival.key, 16)
        group.trial("watched").save(tmp_path / "watched")
        group.leave("watched")
        if until < 40:
            trial = group.enter("watched", watched, checkpoint=tmp_path / "watched")
            assert trial.examples_seen == until
    assert found == pytest.approx(expected, rel=1e-5)
    assert {*group.alone_reasons} <= {"watched"}


def test_batches_put_together_ahead(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a device computes by itself the next batches are made meanwhile: each once, and the
    same, whoever comes, goes, or steps alone."""
    settings = {
        name: config(workload.model, name, seed=n) for n, name in enumerate(("lora", "ia3", "full"))
    }
    expected = {key: Trial(workload, c).train(12) for key, c in settings.items()}
    monkeypatch.setattr(Workload, "computes_ahead", True)
    made: list[tuple[int, ...]] = []
    usual = type(workload.model).collate

    def collate(self: Any, rows: Any, images: Any) -> Any:
        made.append(tuple(id(row) for row in rows))
        return usual(self, rows, images)

    group = TrialGroup(workload, places=3)
    for key, given in settings.items():
        group.enter(key, given)
        group.train_to(key, 12)
    monkeypatch.setattr(type(workload.model), "collate", collate)
    found = {arrival.key: arrival.train_loss for arrival in arrivals(group, 3)}
    assert set(group.alone_reasons) == {"full"}
    assert found == pytest.approx(expected, rel=1e-5)
    # Three of the pair, and three of the one alone, which has one more ahead: it may yet go on.
    assert len(made) == 3 + 4
    group.leave("ia3")
    group.train_to("lora", 24)
    (arrival,) = arrivals(group, 3)
    alone = Trial(workload, settings["lora"])
    alone.train(12)
    assert arrival.train_loss == pytest.approx(alone.train(24), rel=1e-5)


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
    # A fork's module keeps the hook.
    handle = first.register_forward_hook(
        lambda _, __, out: seen.append(any(t.requires_grad for t in out.values()))
    )
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


@pytest.mark.parametrize("error", [MemoryError("too much"), RuntimeError("something else")])
def test_a_pass_that_fails_is_made_smaller(
    workload: Workload, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """If memory runs out, passes are halved from then on. After other errors, trials are alone."""
    usual, tried = Pack.backward, []

    def failing(self: Pack, members: Any) -> list[float]:
        tried.append(len(members))
        if len(members) > 2:
            usual(self, members)  # leaves gradients behind
            raise error
        return usual(self, members)

    monkeypatch.setattr(Pack, "backward", failing)
    group = TrialGroup(workload, places=4)
    configs = {str(n): config(workload.model, "lora", seed=n) for n in range(4)}
    for key, settings in configs.items():
        group.enter(key, settings)
        group.train_to(key, 8)
    found = {arrival.key: arrival for arrival in arrivals(group)}
    for key, settings in configs.items():
        assert found[key].error is None
        expected = Trial(workload, settings).train(8)
        assert found[key].train_loss == pytest.approx(expected, rel=1e-5)
    assert tried == ([4, 2, 2, 2, 2] if isinstance(error, MemoryError) else [4])
    assert set(group.alone_reasons) == (set() if isinstance(error, MemoryError) else set(configs))
