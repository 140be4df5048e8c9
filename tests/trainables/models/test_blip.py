"""The BLIP family: transformers' own forward pass, checkpoints, and the counts of the papers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertTokenizer

from tests.trainables.conftest import made_up
from trainables import recipe
from trainables.errors import BadInput
from trainables.measures.common.normalize import correct, normalize
from trainables.model_contract import ANSWER_TOKENS, Model
from trainables.model_lookup import TINY
from trainables.models import blip
from trainables.models.blip import Blip, as_written
from trainables.recipe import Recipe
from trainables.weight_sharing import share_weights
from trainables.workload import Workload


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """This family alone."""
    if "family" in metafunc.fixturenames:
        blip = pytest.mark.parametrize("family", ["blip"], scope="session", indirect=True)
        metafunc.definition.add_marker(blip)


def test_the_loss_is_that_of_transformers(workload: Workload) -> None:
    network = workload.model.network
    for i in range(5):
        batch = workload.batch("validation", [i])
        ours = workload.model.losses(network, batch)[0]
        theirs = network(
            input_ids=batch.question_BQ,
            pixel_values=batch.pixels_UCSS,
            attention_mask=batch.question_mask_BQ,
            labels=batch.answer_BA,
        ).loss
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "answer",
    [
        *("3.5 cm", "1,000", "5%", "1:2", "yes, 2.5 x 3.0 cm.", "T2-weighted", "right/left"),
        *("patient's left lung", "Sj\u00f6gren", "\u809d\u810f", "\u6838\u78c1\u5171\u632f"),
        *("no. 3 of them", "1 - 2 days", "the heart is normal. no effusion."),
    ],
)
def test_an_answer_that_is_right_token_for_token_is_right(answer: str, tmp_path: Path) -> None:
    """Whatever blanks BERT's tokenizer leaves."""
    marks = [*",.%:-/'", *"\u809d\u810f\u6838\u78c1\u5171\u632f"]
    words = re.findall(r"[a-z0-9]+", f"{normalize(answer)} {answer.lower()}")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *marks, "sjogren", *words]
    (tmp_path / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in tokens
    assert correct(as_written(tokenizer.decode(tokens)), answer)


@pytest.mark.parametrize("beams", [1, 3])
def test_the_answer_is_that_of_transformers(workload: Workload, beams: int) -> None:
    model, network = workload.model, workload.model.network
    assert isinstance(model, Blip)
    for i in range(5):
        batch = workload.batch("validation", [i])
        tokens = network.generate(  # type: ignore[operator]  # torch: any Module's attribute
            input_ids=batch.question_BQ,
            pixel_values=batch.pixels_UCSS,
            attention_mask=batch.question_mask_BQ,
            max_new_tokens=ANSWER_TOKENS,
            num_beams=beams,
            do_sample=False,
        )
        theirs = model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        assert model.answers(network, batch, beams=beams) == theirs


def test_pixels_are_normalised_as_by_transformers(workload: Workload) -> None:
    from PIL import Image
    from transformers import BlipImageProcessor

    theirs = BlipImageProcessor(do_resize=False)(
        [Image.fromarray(image) for image in workload.images_NSSC[:2]], return_tensors="pt"
    )["pixel_values"]
    rows = [next(r for r in workload.rows["train"] if r.image == i) for i in (0, 1)]
    ours = workload.model.collate(rows, workload.images_NSSC).pixels_UCSS
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_long_texts_are_cut(workload: Workload) -> None:
    row = workload.model.tokenize(question="ct " * 99, answer="liver " * 99, image=0)
    assert len(row.question) == blip.QUESTION_TOKENS
    assert len(row.answer) == 40, "as many as the decoder has positions for"
    model = workload.model
    assert isinstance(model, Blip)
    assert (row.question[-1], row.answer[0], row.answer[-1]) == (model.end, model.begin, model.end)


def test_an_empty_answer_has_a_loss(workload: Workload) -> None:
    model = workload.model
    row = model.tokenize(question="is this a ct ?", answer="", image=0)
    assert model.losses(model.network, model.collate([row], workload.images_NSSC)).isfinite().all()


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    """A model folder as transformers writes it."""
    assert isinstance(model, Blip)
    model.network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_folder_comes_back(folder: Path, workload: Workload) -> None:
    loaded = blip.load(folder)
    batch = workload.batch("validation", range(4))
    same = workload.model.losses(workload.model.network, batch)
    assert torch.equal(loaded.losses(loaded.network, batch), same)
    assert not loaded.network.training
    assert not any(p.requires_grad for p in loaded.network.parameters())


def test_the_digest_is_of_weights_and_configuration(folder: Path) -> None:
    model = blip.load(folder)
    before = model.digest
    assert blip.load(folder).digest == blip.load(folder, model.image_size).digest == before
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    rewrite(folder, {**weights, name: weights[name] + 1})
    assert blip.load(folder).digest != before


def test_wrong_keys_are_listed_in_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    weights = load_file(folder / "model.safetensors")
    gone = "vision_model.post_layernorm.bias"
    other = "vision_model.post_layernorm.weight"
    more = {f"more.{i}": torch.zeros(1) for i in range(40)}
    wrong = {**weights, other: torch.zeros(3), **more}
    del wrong[gone]
    rewrite(folder, wrong)
    capfd.readouterr()
    with pytest.raises(BadInput) as refused:
        blip.load(folder)
    said = str(refused.value)
    assert "\n" not in said
    assert f"1 missing keys: {gone};" in said
    assert "1 mismatched keys:" in said and other in said
    assert "40 unexpected keys: more.0, more.1, more.10, more.11, more.12, ..." in said
    assert "".join(capfd.readouterr()) == "", "nothing but our line is said"


def test_positions_are_interpolated_for_images_of_another_size(folder: Path) -> None:
    """As transformers would at every step; and the network is then of that size."""
    whole, larger = blip.load(folder), blip.load(folder, image_size=48)
    pixels_UCSS = torch.randn(2, 3, 48, 48)
    theirs = whole.network.vision_model(pixels_UCSS, interpolate_pos_encoding=True)
    ours = larger.network.vision_model(pixels_UCSS)
    torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state)
    assert larger.image_size == 48 and larger.digest != whole.digest
    assert len(list(larger.network.parameters())) == len(list(whole.network.parameters()))
    counted = blip.skeleton(folder, image_size=48).network
    assert sum(p.numel() for p in counted.parameters()) == sum(
        p.numel() for p in larger.network.parameters()
    )
    workload = made_up(larger)
    assert larger.losses(larger.network, workload.batch("train", [0, 1])).isfinite().all()
    for read in (blip.load, blip.skeleton):
        with pytest.raises(BadInput, match=r"image-size 40 is no multiple of .* 16 .*; 32 and 48"):
            read(folder, image_size=40)


def test_beams_are_those_of_the_folder_or_of_the_papers(folder: Path) -> None:
    assert blip.load(folder).beams == 3
    assert blip.load(TINY).beams == 1


def test_a_token_without_a_row_is_refused(folder: Path) -> None:
    tokenizer = BertTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["hepatomegaly"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(BadInput, match="1 have none, as 'hepatomegaly'"):
        blip.load(folder)


@pytest.mark.parametrize("name", ["pad", "bos", "sep"])
def test_a_special_token_may_be_the_tokenizers(folder: Path, name: str) -> None:
    tokenizer, file = BertTokenizer.from_pretrained(folder), folder / "config.json"
    config = json.loads(file.read_text())
    known = config["text_config"][f"{name}_token_id"]
    config["text_config"][f"{name}_token_id"] = None
    file.write_text(json.dumps(config))
    setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(known))
    tokenizer.save_pretrained(folder)
    model = blip.load(folder)
    assert {"pad": model.pad, "bos": model.begin, "sep": model.end}[name] == known
    config["text_config"][f"{name}_token_id"] = 10**6
    file.write_text(json.dumps(config))
    # PyTorch refuses a padding without a row, but only that.
    with pytest.raises(BadInput, match=r"token_id of text_config .* not 1000000|describes no BLIP"):
        blip.load(folder)


@pytest.mark.parametrize("damage", ["cut off", "gone", "no tokenizer"])
def test_a_damaged_folder_is_refused(folder: Path, damage: str) -> None:
    weights = folder / "model.safetensors"
    if damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "gone":
        weights.unlink()
    else:
        (folder / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=str(folder)):
        blip.load(folder)


def test_loading_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    blip.load(TINY)
    assert "".join(capfd.readouterr()) == ""


@pytest.fixture(scope="module")
def miss() -> Blip:
    """The shape of MISS, without memory."""
    from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering

    config = BlipConfig(text_config={"vocab_size": 30524}, vision_config={"image_size": 480})
    with torch.device("meta"):
        network = BlipForQuestionAnswering(config)
    return Blip(name="miss", digest="", network=network, tokenizer=BertTokenizer())


@pytest.mark.parametrize(
    ("methods", "trained"),
    [
        (("layernorm", "layernorm", "layernorm"), (38_400, 56_832, 58_368)),
        (("full", "full", "full"), (86_339_328, 137_258_496, 137_881_148)),
        (("frozen", "full", "frozen"), (0, 137_258_496, 0)),
    ],
)
def test_counts_are_those_of_the_papers(
    miss: Blip, methods: tuple[str, ...], trained: tuple[int, ...]
) -> None:
    slots = dict(zip(miss.slots, methods, strict=True))
    applied = recipe.apply(
        Recipe.from_plain({slot: {"method": method} for slot, method in slots.items()}),
        miss,
        share_weights(miss.network),
        seed=0,
    )
    assert applied.total_parameters == 361_478_972
    assert tuple(count.trained_parameters for count in applied.counts) == trained


@pytest.mark.parametrize(
    ("fusion", "rank", "percent"),
    [("lora", 4, 0.163), ("lora", 8, 0.325), ("full", 4, 38.022), ("full", 8, 38.072)],
)
def test_percentages_are_those_of_the_papers(
    miss: Blip, fusion: str, rank: int, percent: float
) -> None:
    lora = {"method": "lora", "rank": rank}
    slots = {"fusion": lora if fusion == "lora" else {"method": fusion}, "decoder": lora}
    applied = recipe.apply(Recipe.from_plain(slots), miss, share_weights(miss.network), seed=0)
    assert round(applied.trained_percent, 3) == percent
