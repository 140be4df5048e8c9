"""Presets: published models to plan with, whose parameters are counted without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study import plan
from tests.trainables import made_image_text
from tests.trainables.conftest import NEEDS
from trainables import registry
from trainables.errors import BadInput
from trainables.model_lookup import family_of, skeleton_of
from trainables.models import image_text_to_text
from trainables.models.common.image_text.images import COUNTED, image_tokens
from trainables.shared_layers.quantised_linear import count_values

PRESETS = registry.presets()
README = next(iter(PRESETS.values())).with_name("README.md").read_text(encoding="utf-8")
FAST = ("gemma3", "internvl", "smolvlm", "qwen2_5_vl", "mistral3")
"""Classes that stand for all: each of these counts tokens in a way of its own."""
IMAGE_TOKENS = {
    "medgemma-4b": 256,
    "paligemma2-3b": 256,
    "qwen2.5-vl-7b": 256,
    "qwen3-vl-4b": 196,
    "internvl3-8b": 256,
    "smolvlm-500m": 64,
    "smolvlm-2.2b": 81,
}
"""Tokens of an image of the size that a study takes, worked out by hand."""


OWN = [name.replace("_", "-") for name in registry.FAMILIES.names()]
BY_NAME = [
    pytest.param(
        name,
        marks=() if json.loads(file.read_text("utf-8"))["model_type"] in OWN else NEEDS,
    )
    for name, file in PRESETS.items()
]


def note(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PRESETS[name].read_text(encoding="utf-8"))["preset"]
    return found


@pytest.mark.parametrize("name", BY_NAME)
def test_a_preset_has_the_parameters_that_were_published(name: str) -> None:
    said = note(name)
    assert set(said) == {"of", "source", "parameters", "published", "published_in"}
    assert all(said[key] for key in ("of", "source", "published_in"))
    found = skeleton_of(name)
    assert found.name == name and all(p.is_meta for p in found.network.parameters())
    assert count_values(found.network) == said["parameters"]
    assert said["published"] in (None, said["parameters"])


def test_the_table_says_what_the_files_say() -> None:
    rows = [line.split("`")[1] for line in README.splitlines() if line.startswith("| `")]
    assert {"medgemma-4b", "miss"} < set(rows)
    for name in rows:
        said = note(name)
        checked = "yes" if said["published"] else "not checked"
        assert f"| `{name}` | {said['of']} | {said['parameters']:,} | {checked} |\n" in README


def test_the_models_of_the_field_are_there() -> None:
    published = {name: note(name)["published"] for name in PRESETS}
    assert published["medgemma-4b"] == 4_300_079_472
    assert published["qwen2.5-vl-7b"] == 8_292_166_656
    assert published["internvl3-1b"] == 938_193_024
    assert published["smolvlm-256m"] == 256_484_928


@NEEDS
@pytest.mark.parametrize(("name", "tokens"), IMAGE_TOKENS.items())
def test_an_image_of_a_preset_has_the_tokens_of_its_class(name: str, tokens: int) -> None:
    found = skeleton_of(name)
    assert found.question_tokens - skeleton_of("smolvlm-256m").question_tokens == tokens - 64


@NEEDS
@pytest.mark.parametrize(
    "kind",
    [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in made_image_text.CLASSES],
)
def test_image_tokens_are_as_many_as_the_processor_writes(kind: str, tmp_path: Path) -> None:
    written = made_image_text.write(tmp_path / kind, kind, ["a", "b"])
    model = image_text_to_text.load(written, image_size=made_image_text.SIZE)
    if kind in COUNTED:
        assert image_tokens(model.config, made_image_text.SIZE) == len(model.inputs.run)
        return
    with pytest.raises(BadInput, match=f"of a model of type {kind} is known only with its proc"):
        image_tokens(model.config, made_image_text.SIZE)


@NEEDS
@pytest.mark.slow
def test_memory_is_predicted_for_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    """Positions may be scaled by the largest, as in InternVL3, and the base be in 4 bits."""
    pytest.importorskip("bitsandbytes")
    asked = ("--space", "layernorm_vs_lora", "--arm", "layernorm", "--model", "internvl3-1b")
    batch = ("--batch-size", "2", "--precision", "bf16", "--base-bits", "4")
    assert plan.main([*asked, *batch, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    # The embeddings and the head, 151,674 tokens of 896 each, stay in 16 bits.
    whole = 2 * 151_674 * 896
    expected = 2 * whole + (938_193_024 - whole) * (0.5 + 1 / 64)
    assert row["memory"]["weights_gib"] * 1024**3 == pytest.approx(expected, rel=0.02)
    assert row["memory"]["peak_gib"] > row["memory"]["weights_gib"]
    assert {slot["tuning"] for slot in row["slots"]} == {"layernorm"}
    assert [slot["trained_parameters"] for slot in row["slots"]] == [98_304, 8_192, 43_904]


@pytest.mark.parametrize("given", ["medgemma-4b", str(Path.cwd() / "medgemma-4b")])
def test_a_preset_has_no_weights_to_train(given: str) -> None:
    with pytest.raises(BadInput, match="model 'medgemma-4b' is a preset without weights"):
        family_of(given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"mine\.json can't be read"),
        pytest.param(
            '{"model_type": "bert"}',
            r"mine\.json is of model_type 'bert'; there are: blip, blip-2, instructblip, llava",
            marks=NEEDS,
        ),
        pytest.param(
            '{"model_type": "llava_next"}',
            "of type llava_next is known only with its processor",
            marks=NEEDS,
        ),
        pytest.param(
            '{"model_type": "gemma3", "text_config": 3}',
            r"mine\.json describes no gemma3|no image",
            marks=NEEDS,
        ),
    ],
)
def test_a_bad_preset_is_refused_in_one_line(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.json").write_text(text)
    monkeypatch.setattr(registry, "presets", lambda: {"mine": tmp_path / "mine.json"})
    with pytest.raises(BadInput, match=said) as refused:
        skeleton_of("mine")
    assert "\n" not in str(refused.value)
