"""The command that composes a model: new parts get trained, and what does not fit is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.data.small import vqa_rad as small_vqa_rad
from tests.trainables.model_tools.composed import config, text_tower, vision_tower
from trainables.errors import BadInput
from trainables.model_tools import compose
from trainables.model_tools.composing.compose_config import ComposeConfig
from trainables.models import blip
from trainables.training.trial import Trial


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    small_vqa_rad.write(root)
    return root


def test_alignment_trains_on_the_training_split_alone(
    vision: Path,
    text: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []
    usual = Trial.batch

    def batch(self: Any, split: str, indices: Any) -> Any:
        asked.append(split)
        return usual(self, split, indices)

    monkeypatch.setattr(Trial, "batch", batch)
    with_data = {"data": "vqa_rad", "data_root": str(data), "epochs": 40, "lr": 3e-3}
    model = compose.run(config(vision, text, tmp_path, **with_data))
    # Validation at the end, to say how good it has become.
    assert set(asked[: asked.index("validation")]) == {"train"}
    assert set(asked[asked.index("validation") :]) == {"validation"}
    said = capsys.readouterr().out
    losses = [float(line.split()[-1]) for line in said.splitlines() if "training loss" in line]
    assert len(losses) == 40
    assert losses[-1] < 0.5 * losses[0]
    card = (tmp_path / "README.md").read_text()
    assert "vqa_rad (official), digest" in card
    assert f"{losses[-1]:.3f}" in card

    untouched = compose.run(config(vision, text, tmp_path / "without"))
    before, after = untouched.network.state_dict(), model.network.state_dict()
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert {name.split(".")[0] for name in moved} == {"text_encoder", "text_decoder"}
    assert any("crossattention" in name for name in moved)
    loaded = blip.load(tmp_path).network.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in after.items())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"image_size": 30}, "--image-size 30 is not a multiple .* of 14 px; 28 is"),
        ({"text_layers": 5}, "--text-layers 5 is more than the 4"),
        ({"vocabulary": 10}, r"--vocabulary 10 is less than the \d+ special tokens"),
        ({"vision": "/nowhere"}, "--vision /nowhere has no config.json"),
        ({"data": "phantmo"}, "unknown dataset 'phantmo'; did you mean 'phantom'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_does_not_fit_is_one_line(
    vision: Path, text: Path, tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    wrong = {**vars(config(vision, text, tmp_path)), **other}
    with pytest.raises(BadInput, match=said) as refused:
        compose.run(ComposeConfig(**wrong))
    assert "\n" not in str(refused.value)


def test_towers_of_other_kinds_are_refused(vision: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"unknown family of --vision .* 'bert'; .*: dinov2"):
        compose.run(config(text, text, tmp_path))
    with pytest.raises(BadInput, match="32 wide and the text encoder 48"):
        compose.run(config(vision, text_tower(tmp_path / "wide", hidden_size=48), tmp_path))
    with pytest.raises(BadInput, match="SwiGLU"):
        compose.run(config(vision_tower(tmp_path / "g", use_swiglu_ffn=True), text, tmp_path))


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{"], ids=["deep", "list", "cut"])
def test_a_damaged_config_of_a_tower_is_one_line(text: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput, match=r"--vision .* has no config.json that can be read"):
        compose.run(config(tmp_path, text, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_tower_that_lacks_weights_is_refused(vision: Path, text: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = vision_tower(tmp_path / "vision")
    weights = load_file(folder / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        BadInput, match=r"not hold a whole DINOv2 model; 1 missing keys: layernorm\.weight"
    ):
        compose.run(config(folder, text, tmp_path / "out"))


def test_a_normalisation_of_no_sense_is_refused(vision: Path, text: Path, tmp_path: Path) -> None:
    folder = vision_tower(tmp_path / "vision")
    file = folder / "preprocessor_config.json"
    for content, said in {
        "{": "is no JSON",
        "[]": ": the whole should be an object, not []",
        '{"image_mean": null}': ": image_mean should be a list, not null",
        '{"image_mean": [0.5]}': " lacks image_mean[1]",
        '{"image_std": [1, 1, "x"]}': ": image_std[2] should be a number, not 'x'",
    }.items():
        file.write_text(content)
        with pytest.raises(BadInput, match=re.escape(said)) as refused:
            compose.run(config(folder, text, tmp_path / "out"))
        assert "\n" not in str(refused.value)


def test_the_command(vision: Path, text: Path, tmp_path: Path, capsys: Any) -> None:
    asked = ["--vision", str(vision), "--text", str(text), "--out", str(tmp_path)]
    asked += ["--vocabulary", "0", "--epochs", "0"]
    assert compose.main([*asked, "--image-size", "29"]) == 2
    assert capsys.readouterr().err.startswith("error: --image-size 29")
    assert compose.main([*asked, "--image-size", "28", "--text-layers", "2"]) == 0
    assert f"use it with --model {tmp_path}" in capsys.readouterr().out
