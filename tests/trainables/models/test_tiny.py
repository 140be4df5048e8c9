"""The small model that ships with the project, and the script that makes it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import BertTokenizerFast, BlipForQuestionAnswering

from trainables.errors import BadInput
from trainables.model_tools.pretrain_tiny import PretrainConfig, run
from trainables.model_tools.tiny_pretraining import picture_questions, sentences
from trainables.model_tools.tiny_pretraining import pictures as drawn_pictures
from trainables.model_tools.tiny_pretraining.network import SPECIAL, make_tokenizer, vocabulary
from trainables.model_tools.tiny_pretraining.shapes import OUTLINES, SPOTS, TEXTURES
from trainables.models import blip

TINY = Path(blip.__file__).parent / "tiny"

# What a model must be able to say and read before it is tuned on radiological questions.
WORDS = """
x ray ct mri ultrasound axial coronal sagittal brain chest lung lungs heart liver kidney kidneys
spleen bladder pelvis abdomen head knee spine hip left right both none zero one two three four five
0 1 2 3 4 5 small medium large bright dark nodule mass cyst lesion lesions tumor fracture effusion
hemorrhage normal abnormal yes no side plane modality organ image scan slice size count finding
abnormality present visible seen shown
""".split()


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast.from_pretrained(TINY)


def asked(count: int) -> list[str]:
    """Questions of the pretraining, of both kinds."""
    rng = np.random.default_rng(0)
    facts = [drawn_pictures.draw(rng).facts for _ in range(50)]
    on_pictures = [picture_questions.ask(rng, facts[i % 50])[0] for i in range(count)]
    return on_pictures + [sentences.read(rng)[0] for _ in range(count)]


def bare(question: str) -> str:
    """Letters and digits only, so that spacing and punctuation can't hide that two are the same."""
    return " ".join(re.findall(r"[a-z0-9]+", question.lower()))


def test_weights_are_small_and_half_precision() -> None:
    file = TINY / "model.safetensors"
    assert file.stat().st_size <= 12 * 2**20
    with safe_open(file, framework="pt") as weights:
        names = list(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"F16"}
        assert all(torch.isfinite(weights.get_tensor(name)).all() for name in names)


def test_loads_whole() -> None:
    network, report = BlipForQuestionAnswering.from_pretrained(
        TINY, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    assert 3e6 <= sum(p.numel() for p in network.parameters()) <= 9e6


def test_its_skeleton_is_the_same_without_weights() -> None:
    bare, whole = blip.skeleton(TINY).network, blip.load(TINY).network
    assert all(parameter.is_meta for parameter in bare.parameters())
    assert {name: tensor.shape for name, tensor in bare.named_parameters()} == {
        name: tensor.shape for name, tensor in whole.named_parameters()
    }


def test_card_says_what_it_is() -> None:
    card = (TINY / "README.md").read_text(encoding="utf-8")
    assert "apache-2.0" in card and "nothing about medicine" in card and "held out" in card


def test_folder_has_the_vocabulary_of_the_script(tokenizer: BertTokenizerFast) -> None:
    lines = (TINY / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert tuple(lines) == vocabulary()
    assert tokenizer.get_vocab() == make_tokenizer().get_vocab()


@pytest.mark.parametrize("word", WORDS)
def test_word_is_one_token(tokenizer: BertTokenizerFast, word: str) -> None:
    assert tokenizer.tokenize(word) == [word]


def test_nothing_is_unknown(tokenizer: BertTokenizerFast) -> None:
    text = "Is there a 3.5-cm (T2/FLAIR) hyperintensity, e.g. pheochromocytoma? #~{}[]|^`@$%&*_=+<>"
    for sentence in (text, *asked(200)):
        assert tokenizer.unk_token_id not in tokenizer(sentence)["input_ids"]


def test_special_tokens_are_those_of_blip(tokenizer: BertTokenizerFast) -> None:
    assert vocabulary()[: len(SPECIAL)] == SPECIAL
    config = BlipForQuestionAnswering.config_class.from_pretrained(TINY).text_config
    numbers = [config.pad_token_id, config.bos_token_id, config.sep_token_id]
    assert tokenizer.convert_ids_to_tokens(numbers) == ["[PAD]", "[DEC]", "[SEP]"]
    begin, word, end = tokenizer.convert_tokens_to_ids(["[DEC]", "liver", "[SEP]"])
    assert tokenizer.decode([begin, word, end], skip_special_tokens=True) == "liver"


def test_pictures_and_questions_follow_the_seed() -> None:
    one, same, other = (drawn_pictures.draw(np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert one.facts == same.facts and np.array_equal(one.pixels, same.pixels)
    assert not np.array_equal(one.pixels, other.pixels)
    assert asked(20) == asked(20)


@pytest.mark.parametrize("outline", OUTLINES)
def test_every_outline_is_visible(outline: str) -> None:
    axis = np.linspace(-1, 1, 96, dtype=np.float32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    assert 0.1 < OUTLINES[outline](u, v).mean() < 0.9


def test_pictures_are_diverse_and_facts_true() -> None:
    rng = np.random.default_rng(1)
    pictures = [drawn_pictures.draw(rng) for _ in range(400)]
    facts = [picture.facts for picture in pictures]
    assert {f.outline for f in facts} == set(OUTLINES) and len(OUTLINES) >= 12
    assert {f.texture for f in facts} == set(TEXTURES)
    assert {f.spot_shape for f in facts} == {*SPOTS, "none"}
    assert {f.spots for f in facts} == set(range(6))
    for picture in pictures:
        _, spots = picture.layout
        left, right = spots[:, :12].sum(), spots[:, 12:].sum()
        assert (spots.sum() > 0) == (picture.facts.spots > 0)
        if picture.facts.spot_side in ("left", "right"):
            assert (left > right) == (picture.facts.spot_side == "left")


def test_closed_questions_are_balanced() -> None:
    rng = np.random.default_rng(2)
    answers = [picture_questions.ask(rng, drawn_pictures.draw(rng).facts)[1] for _ in range(1500)]
    closed = [answer for answer in answers if answer in ("yes", "no")]
    assert 0.42 < closed.count("yes") / len(closed) < 0.58


@pytest.mark.skipif(
    importlib.util.find_spec("trainables.data.phantom") is None, reason="phantom is not there"
)
def test_no_question_of_phantom_was_asked() -> None:
    from trainables.data import phantom

    splits = phantom.load(None).splits().values()
    theirs = {bare(example.question) for examples in splits for example in examples}
    ours = [bare(question) for question in asked(5000)]
    assert not theirs & set(ours)
    # Nor as the question that ends a text: what comes after the last full stop.
    texts = [bare(question.rpartition(" . ")[2]) for question in asked(5000)]
    assert not theirs & set(texts)


def test_bad_numbers_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--answer-steps 0 .* at least 1"):
        PretrainConfig(answer_steps=0)
    with pytest.raises(BadInput, match=r"--peak-lr -1.0"):
        PretrainConfig(peak_lr=-1.0)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="can't be written to"):
        run(PretrainConfig(out=tmp_path / "file"))


def test_script_makes_a_model(tmp_path: Path) -> None:
    config = PretrainConfig(
        out=tmp_path / "made",
        look_steps=2,
        answer_steps=2,
        pictures_per_step=2,
        questions_per_picture=2,
        sentences_per_step=2,
        held_out_pictures=1,
        threads=1,
    )
    scores = run(config)
    assert set(scores) == {"pictures", "sentences"}
    model = blip.load(config.out)
    assert {file.name for file in config.out.iterdir()} >= {
        *("config.json", "model.safetensors", "preprocessor_config.json", "README.md"),
        *("tokenizer.json", "vocab.txt"),
    }
    row = model.tokenize(question="what is this ?", answer="liver", image=0)
    batch = model.collate([row], np.zeros((1, 96, 96, 3), np.uint8))
    assert torch.isfinite(model.losses(model.network, batch)).all()
