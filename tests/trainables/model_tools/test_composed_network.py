"""A composed model computes what its pretrained parts computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BertModel, BertTokenizer, Dinov2Model

from tests.trainables.model_tools.composed import (
    LETTERS,
    SPECIAL,
    config,
    given,
    images,
    seen,
    vision_tower,
)
from tests.trainables.models import towers
from trainables.cache import folders as cache_folders
from trainables.model_tools import compose
from trainables.model_tools.composing import towers as model_towers
from trainables.model_tools.composing.compose_config import ComposeConfig
from trainables.models import blip
from trainables.models.common.clip import DEVIATION, MEAN


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
