"""BLIP-2 and InstructBLIP give what transformers gives for the same folder.

What every family promises is in ``test_families``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoProcessor

from tests.trainables import made_blip2
from tests.trainables.conftest import WORDS, made_up
from tests.trainables.made_blip2 import SIZE
from trainables import model_lookup, recipe, registry
from trainables.data.common.dataset import seal
from trainables.data.common.wording import Asking
from trainables.errors import BadInput
from trainables.export import peft_adapter, tuned_model
from trainables.export.tuned_json import Description
from trainables.memory import footprint
from trainables.memory.footprint import BatchShape
from trainables.models.blip_2 import Blip2
from trainables.models.instructblip import InstructBlip
from trainables.recipe import Recipe
from trainables.weight_sharing import share_weights
from trainables.workload import Workload, WorkloadConfig

KINDS = {"blip_2": Blip2, "instructblip": InstructBlip}
BOTH = pytest.mark.parametrize("name", KINDS)
QUESTIONS = ["is this a ct ?", "where is the lesion ?", "where ?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model folder of a family, written once."""
    root, written = tmp_path_factory.mktemp("models"), dict[str, Path]()

    def write(name: str) -> Path:
        if name not in written:
            written[name] = made_blip2.write(root / name, KINDS[name], WORDS)
        return written[name]

    return write


def noise() -> Any:
    return np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)


def as_transformers(folder: Path, model: Blip2, network: Any, question: str) -> str:
    """The answer that transformers' own network gives by its own processor."""
    processor: Any = AutoProcessor.from_pretrained(folder)
    text = model.prompt.text.replace("{question}", question)
    given = processor(images=noise()[0], text=text, return_tensors="pt")
    tokens = network.generate(**given, eos_token_id=model.end, max_new_tokens=6, do_sample=False)
    words = tokens[0, given["input_ids"].shape[1] :]
    said: str = model.tokenizer.decode(words, skip_special_tokens=True)
    return said.strip()


@BOTH
def test_a_folder_is_of_the_family_of_its_model_type(
    name: str, folder: Callable[[str], Path]
) -> None:
    assert model_lookup.family_of(str(folder(name))) == (name, folder(name))


@BOTH
def test_pixels_and_tokens_are_those_of_the_processor(
    name: str, folder: Callable[[str], Path]
) -> None:
    model, processor = (
        KINDS[name].load(folder(name), None, "fp32"),
        AutoProcessor.from_pretrained(folder(name)),
    )
    text = model.prompt.text.replace("{question}", QUESTIONS[0])
    theirs = processor(images=noise()[0], text=text, return_tensors="pt")
    row = model.tokenize(question=QUESTIONS[0], answer="yes", image=0)
    ours = model.collate([row], noise())
    torch.testing.assert_close(ours.pixels_UCSS, theirs["pixel_values"])
    assert torch.equal(model.words(ours.question_BQ), theirs["input_ids"])


@BOTH
def test_it_answers_as_transformers_does(name: str, folder: Callable[[str], Path]) -> None:
    """In one batch, whose questions are of several lengths."""
    model = KINDS[name].load(folder(name), None, "fp32")
    network: Any = KINDS[name].kind.from_pretrained(folder(name)).eval()
    rows = [model.tokenize(question=q, answer="", image=0) for q in QUESTIONS]
    ours = model.answers(model.network, model.collate(rows, noise()), tokens=6)
    assert ours == [as_transformers(folder(name), model, network, q) for q in QUESTIONS]
    assert len({*ours}) > 1


@BOTH
def test_an_adapter_is_loaded_by_peft_alone(
    name: str, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model = KINDS[name].load(folder(name), None, "fp32")
    lora = {"method": "lora", "targets": "all", "everywhere": True}
    tuned, _ = moved(folder(name), model, dict.fromkeys(model.slots, lora))
    written = peft_adapter.write(tuned, tmp_path)
    assert written.network == KINDS[name].kind.__name__ and list(written.adapters) == ["default"]
    base: Any = KINDS[name].kind.from_pretrained(folder(name))
    theirs = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    rows = [model.tokenize(question=q, answer="", image=0) for q in QUESTIONS]
    batch = model.collate(rows, noise())
    ours = model.answers(tuned.network, batch, tokens=6)
    assert ours == [as_transformers(folder(name), model, theirs, q) for q in QUESTIONS]
    assert ours != model.answers(model.network, batch, tokens=6)


def test_trained_query_tokens_are_exported(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """transformers has them beside the Q-Former."""
    from safetensors.torch import load_file

    model = Blip2.load(folder("blip_2"), None, "fp32")
    tuned, weights = moved(folder("blip_2"), model, {"qformer": {"method": "full"}})
    written = peft_adapter.write(tuned, tmp_path)
    assert written.weights is not None
    exported = load_file(written.weights)
    assert torch.equal(exported["query_tokens"], weights["qformer.queries.query_tokens"])


def moved(folder: Path, model: Blip2, slots: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model tuned by a recipe for ``slots``, and its trained weights, drawn at random."""
    plain = Recipe.from_plain(slots)
    applied = recipe.apply(plain, model, share_weights(model.network), seed=3)
    drawn = torch.Generator().manual_seed(0)
    weights = {
        name: p.detach() + 0.2 * torch.randn(p.shape, generator=drawn)
        for name, p in applied.parameters.items()
    }
    described = Description(
        model=str(folder),
        digest=model.digest,
        recipe=plain.plain(),
        seed=3,
        precision="fp32",
        image_size=SIZE,
    )
    return tuned_model.build(described, weights, model), weights


@BOTH
def test_the_parts_are_put_together_again(name: str, folder: Callable[[str], Path]) -> None:
    model = KINDS[name].load(folder(name), None, "fp32")
    before = KINDS[name].kind.from_pretrained(folder(name)).state_dict()
    after = model.to_transformers(share_weights(model.network)).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@BOTH
def test_memory_is_predicted_without_weights(name: str, folder: Callable[[str], Path]) -> None:
    model = registry.FAMILIES.find(name).skeleton(folder(name))
    assert all(p.is_meta for p in model.network.parameters())
    network = share_weights(model.network)
    plain = Recipe.from_plain({slot: {"method": "full"} for slot in model.slots})
    applied = recipe.apply(plain, model, network, seed=0)
    shape = BatchShape(questions=16, images=8, question_tokens=40, answer_tokens=4)
    found = footprint.predict(model, network, applied, training=shape, evaluation=shape)
    assert found.activations.keys() >= {"vision", "qformer", "decoder"}
    assert found.trained == 4 * applied.trained_parameters


@BOTH
def test_weights_of_16_bits_are_held_so_under_bf16(name: str, tmp_path: Path) -> None:
    """The Q-Former's too, so that what is predicted is what is taken."""
    path = made_blip2.write(tmp_path, KINDS[name], WORDS, dtype=torch.bfloat16)
    family = registry.FAMILIES.find(name)
    for precision, held in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        for model in (
            family.load(path, precision=precision),
            family.skeleton(path, None, precision),
        ):
            assert {p.dtype for p in model.network.parameters()} == {held}


def test_a_size_of_images_is_set(folder: Callable[[str], Path]) -> None:
    model = Blip2.load(folder("blip_2"), 48, "fp32")
    workload = made_up(model)
    assert workload.images_NSSC.shape[1] == 48
    assert model.losses(model.network, workload.batch("train", [0, 1])).isfinite().all()
    with pytest.raises(BadInput, match=r"--image-size 40 is no multiple .* 32 and 48 are"):
        Blip2.load(folder("blip_2"), 40, "fp32")


@BOTH
def test_no_dropout_of_the_base_is_left(name: str, folder: Callable[[str], Path]) -> None:
    """Otherwise no output of the Q-Former could be cached, and trials could not share a pass."""
    model = KINDS[name].load(folder(name), None, "fp32")
    workload = made_up(model)
    batch = workload.batch("train", range(3))
    trained = share_weights(model.network).train()
    assert torch.equal(model.losses(trained, batch), model.losses(model.network, batch))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"text_config": {"model_type": "t5"}},
            "has a t5 as decoder, which is an encoder and a decoder .* known with: opt",
        ),
        ({"text_config": {"model_type": "gpt2"}}, "is of type gpt2; BLIP-2 is known with: opt"),
        ({"image_token_index": None}, "has no image_token_index, .* get the model again"),
        ({"image_token_index": -1}, "must be the number of a token, not -1"),
        ({"num_query_tokens": "many"}, "describes no BLIP-2 model"),
    ],
)
def test_what_cannot_be_done_is_one_line(change: Any, said: str, tmp_path: Path) -> None:
    path = made_blip2.write(tmp_path, Blip2, WORDS)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **change}))
    for read in (
        lambda: Blip2.load(path, None, "fp32"),
        lambda: Blip2.skeleton(path, None, ""),
    ):
        with pytest.raises(BadInput, match=said) as error:
            read()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [Blip2, InstructBlip])
def test_an_end_of_answers_that_has_no_row_is_refused(kind: type[Blip2], tmp_path: Path) -> None:
    path = made_blip2.write(tmp_path, kind, WORDS)
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 10**6
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"eos_token_id .* must be from 0 to \d+, not 1000000"):
        kind.load(path, None, "fp32")


def test_a_prompt_that_is_longer_than_an_opts_positions_is_refused(
    folder: Callable[[str], Path],
) -> None:
    model = Blip2.load(folder("blip_2"), None, "fp32")
    wording = Asking(prompt="{question} " + "ct " * 600).wording()
    said = (
        "has 6.. tokens with its image, options and prompt, but blip_2 reads 502 beside an answer"
    )
    with pytest.raises(BadInput, match=said):
        model.tokenize(question="where ?", answer="no", image=0, wording=wording)


def test_the_q_formers_tokenizer_is_needed(tmp_path: Path) -> None:
    path = made_blip2.write(tmp_path, InstructBlip, WORDS)
    (path / "qformer_tokenizer").rename(path / "elsewhere")
    with pytest.raises(BadInput, match=r"qformer_tokenizer has no tokenizer; it needs"):
        InstructBlip.load(path, None, "fp32")


def test_answers_have_no_more_tokens_than_an_opt_has_positions(tmp_path: Path) -> None:
    """Beside the longest question. Where they would have fewer than before, they are refused."""
    report = "there is a lesion . " * 20
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    lines = []
    for i, split in enumerate(("train", "train", "validation", "test")):
        Image.fromarray(noise()[0]).save(images / f"{i}.png")
        line = {"image": f"images/{i}.png", "question": "what ?", "answer": report, "split": split}
        lines.append(json.dumps(line))
    (tmp_path / "data" / "questions.jsonl").write_text("\n".join(lines))
    path = made_blip2.write(tmp_path / "model", positions=64)
    config = WorkloadConfig(model=str(path), data="jsonl", data_root=str(tmp_path / "data"))
    workload = Workload.load(config)
    longest = max(len(r.question) for rows in workload.rows.values() for r in rows)
    assert workload.answer_tokens == 64 - longest and workload.limiting_positions == 64
    batch = workload.batch("train", [0, 1])
    assert batch.question_BQ.shape[1] + batch.answer_BA.shape[1] == 64
    model: Any = workload.model
    assert torch.isfinite(model.losses(model.network, batch)).all()
    assert model.answers(model.network, batch, tokens=workload.answer_tokens)
    with pytest.raises(BadInput, match=r"has positions for an answer of .. tokens after the long"):
        workload.asked(Asking(prompt="please : {question}"))
    described = Description(
        model=str(path),
        digest=model.digest,
        recipe=Recipe.from_plain({"vision": {"method": "frozen"}}).plain(),
        seed=0,
        precision="fp32",
        image_size=SIZE,
        answer_tokens=workload.answer_tokens,
    )
    tuned = tuned_model.build(described, {}, model)
    image = images / "0.png"
    assert len(tuned.answers(image, ["what ?"])) == 1
    with pytest.raises(BadInput, match="; ask a shorter question"):
        tuned.answers(image, ["what is there in this image ?"])


def test_an_option_has_no_more_tokens_than_an_opt_has_positions(
    folder: Callable[[str], Path],
) -> None:
    model = Blip2.load(folder("blip_2"), None, "fp32")
    model.positions = 70
    small = WorkloadConfig().dataset()
    splits: dict[str, Any] = {name: examples[:2] for name, examples in small.splits().items()}
    first, *rest = splits["test"]
    for answer in ("no", "no " * 30):
        splits["test"] = (replace(first, options=("yes", answer), answer="yes"), *rest)
        data = seal(name="d", description="", contents=small.contents, **splits)
        if answer == "no":
            assert Workload.from_parts(model, data, torch.device("cpu"), None).options("test")
            continue
        with pytest.raises(BadInput, match="has positions for an answer of"):
            Workload.from_parts(model, data, torch.device("cpu"), None)
