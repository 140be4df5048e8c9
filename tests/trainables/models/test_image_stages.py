"""Image encoder and connector of some classes are computed apart, and give what they give together.

So a frozen encoder runs once where only the connector is trained.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.conftest import NEEDS, WORDS, made_up
from tests.trainables.models.small import image_text_to_text
from trainables.model_contract import Model, run_stages
from trainables.models.common.image_text.stages import NORM_FIRST, PRODUCT_FIRST, features
from trainables.recipe import Recipe
from trainables.training.frozen_features import Features
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig

pytestmark = NEEDS
APART = [
    pytest.param(kind, marks=() if kind in ("gemma3", "smolvlm") else (pytest.mark.slow,))
    for kind in (*PRODUCT_FIRST, *NORM_FIRST)
]


def small(kind: str) -> Any:
    return image_text_to_text.small(WORDS, kind)


@pytest.mark.parametrize("kind", APART)
def test_they_give_what_the_class_gives(kind: str) -> None:
    model = small(kind)
    batch = made_up(model).batch("train", range(4))
    assert [stage.slots for stage in model.stages] == [("vision",), ("connector",)]
    together = features(model.network, model.layout.encoded(batch.pixels_UCSS))
    assert torch.equal(run_stages(model, model.network, batch), together)


@pytest.mark.parametrize("kind", APART)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_frozen_encoder_runs_once_where_the_connector_is_trained(
    kind: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(kind)
    workload, encoded = made_up(model), list[int]()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    vision = model.network.get_submodule(model.slots["vision"])
    vision.register_forward_hook(lambda *_: encoded.append(1))
    kept = Features(workload, precision=precision)
    plain = Trial(workload, config(model), precision=precision)
    ours = Trial(workload, config(model), precision=precision, features=kept)
    assert ours.features_done == ours.frozen_stages == 1
    before = len(encoded)
    found = [*(ours.train(ours.examples_seen + 8) for _ in range(3)), ours.validation_loss()]
    assert len(encoded) == before
    expected = [*(plain.train(plain.examples_seen + 8) for _ in range(3)), plain.validation_loss()]
    assert len(encoded) > before
    assert found == pytest.approx(expected, rel=1e-5 if precision == "fp32" else 1e-3)


def config(model: Model) -> TrialConfig:
    slots = {"vision": {"method": "frozen"}, "connector": {"method": "full"}}
    return TrialConfig(
        recipe=Recipe.from_plain(slots | {"decoder": {"method": "layernorm"}}),
        lr=3e-3,
        seed=0,
        max_examples=64,
        batch_size=8,
    )


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "mistral3"])
def test_other_classes_have_one_stage(kind: str) -> None:
    assert [stage.slots for stage in small(kind).stages] == [("vision", "connector")]
