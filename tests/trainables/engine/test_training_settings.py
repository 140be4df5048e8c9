"""Training settings are checked in one place, and only what is off its default is recorded."""

from __future__ import annotations

import importlib.util
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.installed import install
from trainables.engine.training_settings import DEFAULT_TRAINING, TrainingSettings
from trainables.errors import BadInput


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("weight_decay", -0.1, "weight_decay must not be negative but got -0.1"),
        ("weight_decay", "0.1", "weight_decay must not be negative but got '0.1'"),
        ("max_grad_norm", math.inf, "max_grad_norm must not be negative but got inf"),
        ("warmup", 1.0, r"warmup must be in \[0, 1\) but got 1.0"),
        ("warmup", True, r"warmup must be in \[0, 1\) but got True"),
        ("beta1", 1.0, r"beta1 must be in \[0, 1\)"),
        ("beta2", math.nan, r"beta2 must be in \[0, 1\)"),
        ("label_smoothing", 1, r"label_smoothing must be in \[0, 1\) but got 1.0"),
        ("schedule", "cosin", "unknown schedule 'cosin'; did you mean 'cosine'"),
        ("optimizer", "sgd", "unknown optimizer 'sgd'; there are: adamw, adamw_8bit, muon"),
        ("weight_decays", 0.1, "unknown training setting 'weight_decays'; did you mean 'weight_d"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(name: str, value: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        TrainingSettings.from_plain({name: value})


def test_what_is_off_its_default_is_plain() -> None:
    assert DEFAULT_TRAINING.plain() == {} == TrainingSettings.from_plain({"warmup": 0.05}).plain()
    given = {"warmup": 0, "schedule": "linear", "label_smoothing": 0.1}
    settings = TrainingSettings.from_plain(given)
    assert settings.plain() == given and TrainingSettings.from_plain(settings.plain()) == settings
    assert repr(settings.plain()["warmup"]) == "0.0", "0 and 0.0 would be two trials"
    assert TrainingSettings.from_plain({"max_grad_norm": None}).plain() == {"max_grad_norm": 0.0}


@pytest.mark.parametrize(("installed", "refused"), [("2.8.0", True), ("2.9.0", False)])
def test_muon_needs_a_pytorch_that_has_it(
    installed: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "torch", installed)
    monkeypatch.syspath_prepend(str(tmp_path))
    needs = "optimizer 'muon' needs torch >= 2.9, installed is 2.8.0: pip .*, or give adamw"
    with pytest.raises(BadInput, match=needs) if refused else nullcontext():
        TrainingSettings(optimizer="muon").check_installed()


def test_an_optimizer_whose_package_is_missing_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    TrainingSettings(optimizer="adamw").check_installed()
    needs = "'adamw_8bit' needs the package bitsandbytes, which is not installed: .* adamw, muon"
    with pytest.raises(BadInput, match=needs):
        TrainingSettings(optimizer="adamw_8bit").check_installed()
