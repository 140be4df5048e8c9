"""A LLaVA as its authors publish it becomes transformers', and answers as it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlavaForConditionalGeneration

from tests.trainables import made_llava
from tests.trainables.conftest import WORDS, made_up
from trainables.errors import BadInput
from trainables.model_tools import convert_llava
from trainables.models import llava
from trainables.models.common.llava_network import LlavaNetwork, Parts
from trainables.models.llava import Llava
from trainables.workload import WorkloadConfig

SIZES = ("hidden_size", "intermediate_size", "num_attention_heads")
TOWER = {
    "hidden_size": 128,  # two heads of 64, as OpenAI's have
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "image_size": 32,
    "patch_size": 16,
    "initializer_factor": 5.0,
}


def model(projector: str) -> tuple[LlavaNetwork, Any]:
    """A small LLaVA whose token for the image is the last, and as a converter would make it."""
    tokenizer = made_llava.words_tokenizer(WORDS)
    settings = {"mm_projector_type": projector, "vision_config": TOWER}
    network = made_llava.published(tokenizer, "mistral", **settings)
    parts: Any = network
    with torch.no_grad():
        for weight_VD in (parts.model.language_model.embed_tokens.weight, parts.lm_head.weight):
            weight_VD[-1] = weight_VD[:-1].mean(0)
    return network, tokenizer


def names_there(network: LlavaNetwork) -> dict[str, torch.Tensor]:
    """The weights as github.com/haotian-liu/LLaVA and microsoft/LLaVA-Med save them."""
    linear = "linear_2" not in " ".join(network.state_dict())
    found = {}
    for name, weight in network.state_dict().items():
        new = name.replace("model.language_model.", "model.")
        new = new.replace("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.")
        new = new.replace("multi_modal_projector.linear_1", f"mm_projector{'' if linear else '.0'}")
        new = new.replace("multi_modal_projector.linear_2", "mm_projector.2")
        without_image = name.endswith(("embed_tokens.weight", "lm_head.weight"))
        found[new] = (weight[:-1] if without_image else weight).contiguous()
    return found


def write(folder: Path, projector: str = "mlp2x_gelu", *, tower: bool = True, **other: Any) -> Path:
    """Write a model in two shards, with a tokenizer that has no token for an image."""
    network, tokenizer = model(projector)
    folder.mkdir()
    weights = names_there(network)
    if not tower:
        weights = {name: w for name, w in weights.items() if "vision_tower" not in name}
    half = len(weights) // 2
    for number, some in enumerate((list(weights)[:half], list(weights)[half:]), start=1):
        file = folder / f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in some}, file, metadata={"format": "pt"})
    text = network.config.text_config.to_dict()
    kept = ("num_hidden_layers", "num_key_value_heads", "max_position_embeddings", *SIZES)
    said = {
        **{name: text[name] for name in kept},
        "vocab_size": len(tokenizer) - 1,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "architectures": ["LlavaMistralForCausalLM"],
        "model_type": "llava_mistral",
        "torch_dtype": "float32",
        "mm_vision_tower": "openai/clip-of-32-px",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": projector,
        "mm_hidden_size": 128,
        "tokenizer_model_max_length": 2048,
        "image_aspect_ratio": "pad",
    }
    (folder / "config.json").write_text(json.dumps(said | other))
    made_llava.words_tokenizer(WORDS, image=False).save_pretrained(folder)
    return folder


def clip(folder: Path, begin: str = "vision_model.") -> Path:
    """The image encoder alone, with names that begin as those of a CLIP have on the hub."""
    network, _ = model("mlp2x_gelu")
    tower = network.model.vision_tower.state_dict()
    folder.mkdir()
    save_file(
        {f"{begin}{name}": weight.contiguous() for name, weight in tower.items()}
        | {"text_model.final_layer_norm.weight": torch.ones(3)},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": TOWER}))
    return folder


@pytest.mark.parametrize("tower", [True, False], ids=["its own tower", "a CLIP's"])
@pytest.mark.parametrize("projector", ["mlp2x_gelu", "linear"])
def test_it_is_the_same_model(tmp_path: Path, projector: str, tower: bool) -> None:
    source = write(tmp_path / "theirs", projector, tower=tower)
    vision = None if tower else clip(tmp_path / "clip")
    convert_llava.convert(source, tmp_path / "ours", vision)
    network, tokenizer = model(projector)
    config: Any = network.config
    config.text_config.rope_parameters["rope_theta"] = 1e6
    original = Llava(
        name="original",
        digest="",
        network=Parts(LlavaNetwork(config)).eval().requires_grad_(False),
        tokenizer=tokenizer,
    )
    original.network.load_state_dict(Parts(network).state_dict())
    converted = llava.load(tmp_path / "ours")
    assert converted.network.config.text_config.rope_parameters["rope_theta"] == 1e6
    expected, found = (
        model.losses(model.network, made_up(model).batch("validation", range(5)))
        for model in (original, converted)
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert found.std() > 0.1
    if projector == "mlp2x_gelu":
        left = LlavaForConditionalGeneration.from_pretrained(
            tmp_path / "ours", output_loading_info=True
        )[1]
        assert not any(left.values())


@pytest.mark.parametrize("begin", ["", "vision_tower.vision_model.", "model.vision_tower."])
def test_an_image_encoder_is_taken_under_each_of_its_names(tmp_path: Path, begin: str) -> None:
    """Names are those that ``CLIPVisionModel`` writes, or those in a LLaVA, old or new."""
    source, vision = write(tmp_path / "theirs", tower=False), clip(tmp_path / "clip", begin)
    convert_llava.convert(source, tmp_path / "ours", vision)
    taken: Any = llava.load(tmp_path / "ours").network
    (original, _) = model("mlp2x_gelu")
    expected = original.model.vision_tower.state_dict()
    found = taken.whole().model.vision_tower.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_folder_without_an_image_encoder_is_refused(tmp_path: Path) -> None:
    source, vision = write(tmp_path / "theirs", tower=False), clip(tmp_path / "clip", "text_model.")
    with pytest.raises(BadInput, match=r"--vision .*clip holds no image encoder of a CLIP as safe"):
        convert_llava.convert(source, tmp_path / "ours", vision)


@pytest.mark.parametrize(
    ("other", "tower", "said"),
    [
        (
            {"mm_vision_tower": "laion/clip"},
            True,
            "of another maker, whose layers may differ",
        ),
        ({}, False, "names the image encoder openai/clip-of-32-px, and does not hold it; give"),
        (
            {"mm_projector_type": "resampler"},
            True,
            "mm_projector_type should be 'linear' or 'mlp2x_gelu', not 'resampler'",
        ),
        (
            {"architectures": ["LlavaMptForCausalLM"]},
            True,
            "architectures[0] should be 'LlavaMistralForCausalLM' or 'LlavaLlamaForCausalLM', not",
        ),
        ({"architectures": []}, True, "config.json lacks architectures[0]"),
        ({"mm_vision_select_feature": "cls"}, True, "should be 'patch' or 'cls_patch', not 'cls'"),
        ({"mm_vision_select_layer": "last"}, True, "select_layer should be a whole number, not"),
    ],
)
def test_what_cannot_be_converted_is_one_line(
    tmp_path: Path,
    other: dict[str, Any],
    tower: bool,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write(tmp_path / "theirs", tower=tower, **other)
    assert convert_llava.main([str(source), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "null", "[" * 100_000])
def test_a_damaged_configuration_is_refused(tmp_path: Path, content: str) -> None:
    source = write(tmp_path / "theirs")
    (source / "config.json").write_text(content)
    with pytest.raises(BadInput, match=r"config\.json(: the whole| is no JSON)"):
        convert_llava.convert(source, tmp_path / "out", None)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "theirs")
    for file in source.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(BadInput, match="has no tokenizer"):
        convert_llava.convert(source, tmp_path / "out", None)


def test_a_study_says_how_to_convert_it(tmp_path: Path) -> None:
    source = write(tmp_path / "theirs")
    with pytest.raises(
        BadInput, match=r"convert it: python -m trainables\.model_tools\.convert_llava"
    ):
        WorkloadConfig(model=str(source)).check()
    with pytest.raises(BadInput, match="not in the layout of LLaVA's authors"):
        convert_llava.convert(made_llava.write(tmp_path / "hf"), tmp_path / "out", None)
