"""Folders of LLaVA models: weights under any published name, and what cannot be read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainables import made_llava
from tests.trainables.conftest import made_up
from trainables.errors import BadInput
from trainables.model_contract import slot
from trainables.models import llava
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig

LINEAR = {"mm_projector_type": "linear"}


def test_a_connector_of_one_layer(tmp_path: Path) -> None:
    made_llava.write(tmp_path, **LINEAR)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert {key.split("projector.")[1] for key in keys if "projector" in key} == {
        "linear_1.weight",
        "linear_1.bias",
    }
    workload = made_up(llava.load(tmp_path))
    model = workload.model
    assert slot(model, model.network, "connector").roles == {"projection": ("linear_1",)}
    assert model.losses(model.network, workload.batch("train", [0, 1])).isfinite().all()


@pytest.mark.parametrize("settings", [{}, LINEAR], ids=["two layers", "one layer"])
@pytest.mark.parametrize("names", made_llava.NAMES)
def test_weights_are_read_under_the_names_that_they_were_published_with(
    tmp_path: Path, names: str, settings: dict[str, Any]
) -> None:
    """In one file and in several."""
    expected = None
    for files in (0, 1, 3):
        folder = made_llava.write(tmp_path / str(files), **settings)
        if files:
            made_llava.rename(folder, names, files=files)
        workload = made_up(llava.load(folder))
        model = workload.model
        losses = model.losses(model.network, workload.batch("validation", range(5)))
        expected = losses if expected is None else expected
        assert torch.equal(losses, expected)
        counted = llava.skeleton(folder).network.state_dict()
        assert {n: p.shape for n, p in counted.items()} == {
            n: p.shape for n, p in model.network.state_dict().items()
        }


def test_wrong_keys_are_listed_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made_llava.write(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in weights if name.endswith("linear_2.bias"))
    del weights[gone]
    weights["more"] = torch.zeros(1)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    capfd.readouterr()
    with pytest.raises(BadInput) as refused:
        llava.load(tmp_path)
    said = str(refused.value)
    assert "\n" not in said and "does not hold a whole LLaVA model" in said
    assert "1 missing keys: model.multi_modal_projector.linear_2.bias" in said
    assert "1 unexpected keys: more" in said
    assert "".join(capfd.readouterr()) == "", "nothing but our line is said"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"text_config": {"model_type": "gpt2"}}, "the text part of .* is a gpt2; known: llama"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "known: clip_vision_model"),
        ({"vision_feature_layer": [-2, -3]}, "reads several layers"),
    ],
)
def test_other_parts_are_refused(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    made_llava.write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | wrong))
    for read in (llava.load, llava.skeleton):
        with pytest.raises(BadInput, match=said):
            read(tmp_path)


def test_a_tokenizer_without_the_image_is_refused(tmp_path: Path) -> None:
    made_llava.write(tmp_path, image_token_index=99_999)
    with pytest.raises(BadInput, match="has no token 99999, which stands for the image"):
        llava.load(tmp_path)


@pytest.mark.parametrize("published", [torch.bfloat16, torch.float16, torch.float32])
def test_under_bf16_what_was_published_in_16_bits_stays_so(
    tmp_path: Path, published: torch.dtype
) -> None:
    made_llava.write(tmp_path, dtype=published)
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if published == torch.float32:
        expected["bf16"] = torch.float32
    losses = {}
    for precision, dtype in expected.items():
        model = llava.load(tmp_path, None, precision)
        assert {p.dtype for p in model.network.parameters()} == {dtype}
        counted = llava.skeleton(tmp_path, None, precision).network
        assert {p.dtype for p in counted.parameters()} == {dtype}
        recipe = Recipe.from_plain(
            {"connector": {"method": "full"}, "decoder": {"method": "layernorm"}}
        )
        config = TrialConfig(recipe=recipe, lr=1e-3, seed=0, max_examples=96, batch_size=24)
        trial = Trial(made_up(model), config, precision=precision)
        assert {p.dtype for p in trial.applied.parameters.values()} == {torch.float32}
        losses[precision] = [trial.validation_loss(), trial.train(96), trial.validation_loss()]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.03)
    assert losses["fp32"][0] - losses["fp32"][2] > 0.1


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    made_llava.write(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="can't be read as a LLaVA model"):
        llava.load(tmp_path)


@pytest.mark.parametrize(
    ("part", "setting", "value", "said"),
    [
        ("vision_config", "hidden_size", "a", "'hidden_size' expected int, got str (value: 'a')"),
        ("vision_config", "num_attention_heads", 7, "not a multiple of the number of attention"),
        ("text_config", "model_type", "zzz", "zzz"),  # transformers' words vary
    ],
)
def test_a_setting_of_no_sense_is_refused(
    tmp_path: Path, part: str, setting: str, value: object, said: str
) -> None:
    file = made_llava.write(tmp_path / "llava") / "config.json"
    content = json.loads(file.read_text())
    content[part][setting] = value
    file.write_text(json.dumps(content))
    for read in (llava.skeleton, llava.load):
        with pytest.raises(BadInput, match=re.escape(said)) as refused:
            read(file.parent)
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith(f"the config.json of {file.parent} describes no LLaVA")
