"""Trials on a base in four bits share passes, with the losses of each alone, and one dequantised
weight serves them all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.packing.test_pack import RELATIVE, mixed
from tests.trainables.packing.trials import arrivals, config
from tests.trainables.quantised import in_four_bits
from trainables.packing.trial_group import TrialGroup
from trainables.shared_layers.quantised_linear import QuantisedLinear
from trainables.training.trial import Trial

PACKED = {"bitfit", "ia3", "layernorm", "lora", "prefix", "ptv2"}


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("llava", "fp32"),
        ("image_text_to_text/qwen2_5_vl", "bf16"),
        pytest.param("blip", "fp32", marks=pytest.mark.slow),
        pytest.param("blip", "bf16", marks=pytest.mark.slow),
    ],
)
def test_packed_as_alone(kind: str, precision: str) -> None:
    workload = in_four_bits(kind)
    configs = mixed(workload, 1, (4,))  # not those that train weights, which are refused
    assert PACKED - {"bitfit"} <= configs.keys() and not {"full", "attention", "ffn"} & {*configs}
    group = TrialGroup(workload, precision=precision, places=len(configs))
    for key, settings in configs.items():
        group.enter(key, settings)
        group.train_to(key, 8)
    losses = {arrival.key: arrival.train_loss for arrival in arrivals(group)}
    assert not PACKED & set(group.alone_reasons), group.alone_reasons
    for key, settings in configs.items():
        alone = Trial(workload, settings, precision=precision)
        near = RELATIVE[precision]
        assert losses[key] == pytest.approx(alone.train(8), rel=near), key
        assert group.trial(key).validation_loss() == pytest.approx(
            alone.validation_loss(), rel=near
        ), key


def test_a_weight_is_dequantised_once_for_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = in_four_bits("llava")
    group = TrialGroup(workload, places=4)
    for seed in range(4):
        group.enter(str(seed), config(workload.model, "lora", seed=seed))
        group.train_to(str(seed), 8)
    group.step()  # the first step also looks for dropout and frozen features
    alone = Trial(workload, config(workload.model, "lora"))
    alone.step()
    dequantised, looked_at = QuantisedLinear.dequantised, list[Any]()

    def seen(layer: QuantisedLinear, dtype: torch.dtype) -> Tensor:
        looked_at.append(layer)
        return dequantised(layer, dtype)

    monkeypatch.setattr(QuantisedLinear, "dequantised", seen)
    alone.step()
    of_one = len(looked_at)
    looked_at.clear()
    group.step()
    assert not group.alone_reasons and len(looked_at) == of_one > 0
