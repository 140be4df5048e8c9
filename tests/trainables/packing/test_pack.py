"""Exact: a trial's losses are the same alone, packed with others of other methods, with frozen
features, or restored.

How near: fp32 within 1e-5 of the loss (what is measured is 1e-7, the rounding of a product over
other rows). bf16 within 1e-2: one of its roundings is 4e-3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainables.packing.trials import METHODS, arrivals, config, suits
from trainables.data.common.wording import Asking
from trainables.engine.training_settings import TORCH_OF, TrainingSettings
from trainables.packing.pack import Pack
from trainables.packing.trial_group import TrialGroup
from trainables.training.regime import Regime
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

RELATIVE = {"fp32": 1e-5, "bf16": 1e-2}
PACKED = {"attention", "bitfit", "ffn", "ia3", "layernorm", "lora", "prefix", "ptv2"}
"""Must not step alone; a method that is not here may, and then is exact for that."""


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


def one_row(workload: Workload, frozen: int) -> bool:
    """Whether trials step alone since layers in which they train get no row for each image."""
    return any(stage.shared_rows for stage in workload.model.stages[frozen:])


@pytest.fixture
def in_one_pass(workload: Workload) -> Workload:
    """A workload whose trials share a pass even if they train the image encoder."""
    if one_row(workload, 0):
        pytest.skip("trials of this model that train its image encoder step alone")
    return workload


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
    if not one_row(workload, frozen):
        assert not PACKED & set(group.alone_reasons), group.alone_reasons
        assert "another lora 3" not in group.alone_reasons
    if workload.model.slots.keys() == {"vision", "fusion", "decoder"}:
        # A decoder that reads image, question and answer in a row can't tell padding by its length.
        # A CUDA kernel draws masks for a whole batch at once.
        alone = workload.device.type == "cuda"
        assert ("lora 3, dropping" in group.alone_reasons) == alone
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
    "dora by band": {"method": "dora", "rank": (2, 3, 5), "targets": "ffn"},
    "rsLoRA": {"method": "lora", "rank_stabilized": True, "alpha_per_rank": 0.5, "lr_ratio": 2.0},
    "last layer": {"method": "lora", "layers": "last:1", "lr_scale": 0.25},
    "first layer": {"method": "layernorm", "layers": "first:1"},
    "tokens in one layer": {"method": "ptv2", "layers": "last:1"},
    "whole layer": {"method": "full", "layers": "last:1"},
    "scales": {"method": "ia3", "targets": "attention", "lr_scale": 3.0},
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
    allowed = {"whole layer", "all by band"}
    assert one_row(workload, frozen) or not {*group.alone_reasons} - allowed, group.alone_reasons
    for key, settings in configs.items():
        alone, near = Trial(workload, settings, precision=precision), RELATIVE[precision]
        assert losses[key] == pytest.approx(alone.train(8), rel=near), key
        assert group.trial(key).validation_loss() == pytest.approx(
            alone.validation_loss(), rel=near
        ), key


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_trials_of_several_prompts_share_a_pass_as_alone(
    workload: Workload, frozen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output of the stage that reads the question may be cached, for each prompt."""
    frozen, passes = min(frozen, len(workload.model.stages)), list[int]()
    prompts = ("{question}", "where is the lesion ? {question}", None)
    configs = {
        f"{method}, {prompt}": config(
            workload.model,
            method,
            frozen=frozen,
            seed=seed,
            tuning=tuning,
            training=TrainingSettings(prompt=prompt),
        )
        for seed, prompt in enumerate(prompts)
        for method, tuning in (("lora", {}), ("layernorm", {}), ("lora", {"dropout": 0.3}))
    }
    workload = workload.asked(Asking(prompt="{question} yes or no ?"))  # where there is None
    group, backward = TrialGroup(workload, places=len(configs)), Pack.backward

    def counting(self: Pack, members: Any) -> Any:
        passes.append(len(members))
        return backward(self, members)

    monkeypatch.setattr(Pack, "backward", counting)
    for key, settings in configs.items():
        group.enter(key, settings)
        group.train_to(key, 8)
    losses = {arrival.key: arrival.train_loss for arrival in arrivals(group)}
    validated = {key: group.trial(key).validation_loss() for key in configs}
    for key, settings in configs.items():
        alone = Trial(workload, settings)
        assert losses[key] == pytest.approx(alone.train(8), rel=1e-5), key
        assert validated[key] == pytest.approx(alone.validation_loss(), rel=1e-5), key
    assert len({round(loss, 6) for loss in validated.values()}) == len(configs)
    assert one_row(workload, frozen) or max(passes) >= len(prompts)


def test_who_would_draw_other_masks_steps_alone(
    in_one_pass: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pack, "_draws_as_alone", False)
    group = TrialGroup(in_one_pass, places=2)
    group.enter("dropping", config(in_one_pass.model, "lora", tuning={"dropout": 0.3}))
    group.enter("not", config(in_one_pass.model, "lora"))
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


@pytest.mark.needs("torch", TORCH_OF["muon"])
def test_each_training_setting_packed_as_alone(
    in_one_pass: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share a pass, whatever AdamW does with the gradient; those with another loss function
    have a pass of their own."""
    settings: dict[str, dict[str, Any]] = {
        "defaults": {},
        "weight_decay": {"weight_decay": 5.0},
        "warmup": {"warmup": 0.5},
        "linear": {"schedule": "linear"},
        "constant": {"schedule": "constant"},
        "beta1": {"beta1": 0.5},
        "beta2": {"beta2": 0.5},
        "max_grad_norm": {"max_grad_norm": 1e-4},
        "unclipped": {"max_grad_norm": 0},
        "muon": {"optimizer": "muon"},
        "smoothed": {"label_smoothing": 0.2},
        "smoothed more": {"label_smoothing": 0.4},
    }
    configs = {
        key: config(in_one_pass.model, "lora", lr=0.03, training=TrainingSettings.from_plain(given))
        for key, given in settings.items()
    }
    configs["dropout"] = config(in_one_pass.model, "lora", lr=0.03, tuning={"dropout": 0.3})
    for size in (2, 5):
        configs[f"batch_size {size}"] = config(in_one_pass.model, "lora", lr=0.03, batch_size=size)
    group, passes = TrialGroup(in_one_pass, places=len(configs)), list[int]()
    backward = Pack.backward

    def counting(self: Pack, members: Any) -> Any:
        passes.append(len(members))
        return backward(self, members)

    monkeypatch.setattr(Pack, "backward", counting)
    for key, given in configs.items():
        group.enter(key, given)
        group.train_to(key, 5 * given.batch_size)
    found = {arrival.key: arrival.train_loss for arrival in arrivals(group)}
    validated = {}
    for key, given in configs.items():
        alone = Trial(in_one_pass, given)
        assert found[key] == pytest.approx(alone.train(5 * given.batch_size), rel=1e-5), key
        validated[key] = group.trial(key).validation_loss()
        assert validated[key] == pytest.approx(alone.validation_loss(), rel=1e-5), key
    assert len(set(validated.values())) == len(configs), "a setting had no effect"
    assert {"muon"} <= {*group.alone_reasons} <= {"dropout", "muon"}
    assert max(passes) >= len(configs) - 4, "only the loss function keeps the others apart"


def test_coming_going_and_restored_in_the_midst_of_others(
    in_one_pass: Workload, tmp_path: Path
) -> None:
    model = in_one_pass.model
    watched = config(model, "lora", tuning={"dropout": 0.3}, max_examples=40)
    alone = Trial(in_one_pass, watched)
    expected = [alone.train(8), alone.train(20), alone.train(40)]
    group = TrialGroup(in_one_pass, places=4)
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


def test_batches_put_together_ahead(in_one_pass: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a device computes by itself the next batches are made meanwhile: each once, and the
    same, whoever comes, goes, or steps alone."""
    settings = {
        name: config(in_one_pass.model, name, seed=n)
        for n, name in enumerate(("lora", "ia3", "full"))
    }
    expected = {key: Trial(in_one_pass, c).train(12) for key, c in settings.items()}
    monkeypatch.setattr(Workload, "computes_ahead", True)
    made: list[tuple[int, ...]] = []
    usual = type(in_one_pass.model).collate

    def collate(self: Any, rows: Any, images: Any) -> Any:
        made.append(tuple(id(row) for row in rows))
        return usual(self, rows, images)

    group = TrialGroup(in_one_pass, places=3)
    for key, given in settings.items():
        group.enter(key, given)
        group.train_to(key, 12)
    monkeypatch.setattr(type(in_one_pass.model), "collate", collate)
    found = {arrival.key: arrival.train_loss for arrival in arrivals(group, 3)}
    assert set(group.alone_reasons) == {"full"}
    assert found == pytest.approx(expected, rel=1e-5)
    # Three of the pair, and three of the one alone, which has one more ahead: it may yet go on.
    assert len(made) == 3 + 4
    group.leave("ia3")
    group.train_to("lora", 24)
    (arrival,) = arrivals(group, 3)
    alone = Trial(in_one_pass, settings["lora"])
    alone.train(12)
    assert arrival.train_loss == pytest.approx(alone.train(24), rel=1e-5)


@pytest.mark.parametrize("error", [MemoryError("too much"), RuntimeError("something else")])
def test_a_pass_that_fails_is_made_smaller(
    in_one_pass: Workload, monkeypatch: pytest.MonkeyPatch, error: Exception
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
    group = TrialGroup(in_one_pass, places=4)
    configs = {str(n): config(in_one_pass.model, "lora", seed=n) for n in range(4)}
    for key, settings in configs.items():
        group.enter(key, settings)
        group.train_to(key, 8)
    found = {arrival.key: arrival for arrival in arrivals(group)}
    for key, settings in configs.items():
        assert found[key].error is None
        expected = Trial(in_one_pass, settings).train(8)
        assert found[key].train_loss == pytest.approx(expected, rel=1e-5)
    assert tried == ([4, 2, 2, 2, 2] if isinstance(error, MemoryError) else [4])
    assert set(group.alone_reasons) == (set() if isinstance(error, MemoryError) else set(configs))
