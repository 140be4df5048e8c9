"""The output of frozen stages is computed once, and losses and answers stay the same."""

from __future__ import annotations

import shutil
import tempfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainables.conftest import SMALL, made_up
from trainables.model_contract import Model, run_stages
from trainables.recipe import Recipe
from trainables.training.frozen_features import Features
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the cached features."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache" / "medvlm-study" / "features"


@pytest.fixture
def encodings(model: Model) -> Iterator[list[int]]:
    """List that grows by the number of images whenever the base, or a copy of it, encodes some."""
    counted: list[int] = []
    first = model.network.get_submodule(model.slots[model.stages[0].slots[0]])
    handle = first.register_forward_hook(lambda _, __, out: counted.append(len(out[0])))
    yield counted
    handle.remove()


def config(model: Model, frozen: int, method: str = "lora", **settings: Any) -> TrialConfig:
    """Configuration that trains all slots except those of the first ``frozen`` stages."""
    still = {slot for stage in model.stages[:frozen] for slot in stage.slots}
    tuning = {"method": method, "everywhere": True}
    slots = {slot: tuning for slot in model.slots if slot not in still}
    return TrialConfig(
        **{
            "recipe": Recipe.from_plain(slots | {slot: {"method": "frozen"} for slot in still}),
            "lr": 3e-3,
            "seed": 0,
            "max_examples": 64,
            "batch_size": 8,
            **settings,
        }
    )


def run(trial: Trial) -> list[float]:
    losses = [trial.train(trial.examples_seen + 8) for _ in range(4)]
    return [*losses, trial.validation_loss()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_and_answers_are_the_same(
    workload: Workload, encodings: list[int], precision: str
) -> None:
    model = workload.model
    features = Features(workload, precision=precision)
    for frozen in range(len(model.stages) + 1):
        plain = Trial(workload, config(model, frozen), precision=precision)
        with_features = Trial(
            workload, config(model, frozen), precision=precision, features=features
        )
        assert with_features.features_done == with_features.frozen_stages == frozen
        before = len(encodings)
        found = run(with_features)
        assert (len(encodings) == before) == (frozen > 0)
        tolerance = 1e-5 if precision == "fp32" else 1e-2
        assert found == pytest.approx(run(plain), rel=tolerance)
        if precision == "fp32":
            assert with_features.answers("test") == plain.answers("test")
    assert features.refused == {}


def test_stages_lead_where_the_losses_begin(workload: Workload) -> None:
    """A family's stages lead to its losses, and each stage runs its own slots and no others."""
    model, batch = workload.model, workload.batch("validation", range(6))
    expected = model.losses(model.network, batch)
    for done in range(1, len(model.stages) + 1):
        state = run_stages(model, model.network, batch, done)
        rows = [workload.rows["validation"][i] for i in range(6)]
        begun = replace(model.collate(rows, None).to(workload.device), done=done, state=state)
        assert torch.equal(model.losses(model.network, begun), expected)
        assert len(state) == len(
            batch.pixels_UCSS if model.stages[done - 1].per == "image" else rows
        )
    last = [slot for slot in model.slots if all(slot not in s.slots for s in model.stages)]
    assert len(last) == 1


def test_what_is_trained_or_put_in_is_not_frozen(workload: Workload) -> None:
    model = workload.model
    features = Features(workload, precision="fp32")
    for method in ("layernorm", "lora", "ptv2", "full"):
        for frozen in range(len(model.stages) + 1):
            trial = Trial(workload, config(model, frozen, method), features=features)
            assert trial.frozen_stages == frozen, (method, frozen)
    nothing = Trial(workload, config(model, len(model.stages), "frozen"), features=features)
    assert nothing.frozen_stages == len(model.stages)


def test_a_stage_with_dropout_is_computed_each_time(family: str) -> None:
    model = SMALL[family]()
    vision = model.network.get_submodule(model.slots[model.stages[0].slots[0]])
    norm = next(m for m in vision.modules() if isinstance(m, nn.LayerNorm))
    norm.register_forward_hook(lambda m, _, out: nn.functional.dropout(out, 0.2, m.training))
    workload = made_up(model)
    features = Features(workload, precision="fp32")
    trial = Trial(workload, config(model, 1), features=features)
    assert trial.frozen_stages == trial.features_done == 0
    assert run(trial) == run(Trial(workload, config(model, 1)))


def test_each_image_is_encoded_once_for_all_trials(
    workload: Workload, folder: Path, encodings: list[int]
) -> None:
    told: list[tuple[int, int]] = []
    features = Features(
        workload, precision="fp32", progress=lambda done, total: told.append((done, total))
    )
    trial = Trial(workload, config(workload.model, 1), features=features)
    run(trial)
    images = len({row.image for row in workload.rows["train"]})
    assert told == [(images, images)] * 2  # training and validation
    made = len(encodings)
    run(Trial(workload, config(workload.model, 1, "layernorm"), features=features))
    again = Features(workload, precision="fp32")  # of another process
    second = Trial(workload, config(workload.model, 1), features=again)
    assert len(encodings) - made <= 6  # a look at one image, to know shapes and that none is random
    made = len(encodings)
    run(second)
    assert len(encodings) == made
    assert len(list(folder.glob("*.npy"))) == 2


def test_other_weights_pixels_and_precisions_are_other_files(
    made: Callable[..., Workload], family: str, folder: Path
) -> None:
    workload = made(family)
    model = workload.model

    def files(workload: Workload, precision: str = "fp32") -> int:
        Trial(
            workload,
            config(workload.model, 1),
            precision=precision,
            features=Features(workload, precision=precision),
        )
        return len(list(folder.glob("*-train-*.npy")))

    assert files(workload) == files(workload) == 1
    assert files(workload, "bf16") == 2
    assert files(replace(workload, images_NSSC=np.flip(workload.images_NSSC, 0))) == 3
    model.digest = "1" * 64
    assert files(workload) == 4
    assert files(made(family, torch.bfloat16), "bf16") == 5


def test_a_disk_that_is_full_when_it_is_tested_fails_no_trial(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = Features(workload, precision="fp32")
    trial = Trial(workload, config(workload.model, 1), features=features)
    assert trial.features_done == 1
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    assert trial.answers("test") == Trial(workload, trial.config).answers("test")


def test_what_does_not_fit_is_computed_each_time(
    workload: Workload, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    features = Features(workload, precision="fp32")
    last = len(workload.model.stages)
    trial = Trial(workload, config(workload.model, last), features=features)
    assert (trial.frozen_stages, trial.features_done) == (last, 0)
    assert run(trial) == run(Trial(workload, config(workload.model, last)))
    assert set(features.refused) == set(range(1, last + 1))
    assert "values of 4 bytes = 0.00 GiB) can't be kept in" in features.refused[1]
    assert "has 0.00 GiB left" in features.refused[1]
    assert not list(folder.glob("*.npy"))
