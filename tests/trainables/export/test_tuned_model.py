"""A tuned model leaves the house: in our form, and in peft's, which peft alone can load."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import BlipForQuestionAnswering, LlavaForConditionalGeneration

from tests.trainables import made_llava
from trainables import recipe
from trainables.data.common.images import load_images
from trainables.errors import BadInput
from trainables.export import peft_adapter, tuned_json, tuned_model
from trainables.export.tuned_json import Description
from trainables.export.tuned_model import TunedModel
from trainables.model_lookup import TINY
from trainables.models import blip, llava
from trainables.models.llava import Llava
from trainables.recipe import Recipe
from trainables.weight_sharing import share_weights

BOTH = ("A: yes", "B: no")
QUESTIONS = ["what is the modality ?", "is there a lesion ?", "how many spots ?"]
EVERYWHERE = ("vision", "fusion", "decoder")


def moved(slots: dict[str, dict[str, Any]]) -> TunedModel:
    """The shipped model with a recipe, whose trained values are moved as training would."""
    model = blip.load(TINY)
    plain = Recipe.from_plain(slots).plain()
    applied = recipe.apply(Recipe.from_plain(slots), model, share_weights(model.network), seed=3)
    drawn = torch.Generator().manual_seed(0)
    weights = {
        name: p.detach() + 0.2 * torch.randn(p.shape, generator=drawn)
        for name, p in applied.parameters.items()
    }
    return tuned_model.build(
        Description(model="tiny", digest=model.digest, recipe=plain, seed=3, precision="fp32"),
        weights,
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8)
    Image.fromarray(drawn).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def everywhere(method: str, **settings: Any) -> dict[str, dict[str, Any]]:
    return {slot: {"method": method, **settings} for slot in EVERYWHERE}


LORA = {"method": "lora", "rank": 4}
RECIPES = {
    "lora": (everywhere("lora", rank=4), ["default"]),
    "dora": (everywhere("dora"), ["default"]),
    "vera": (everywhere("vera", rank=64), list(EVERYWHERE)),  # of each slot its own random values
    "ia3": (everywhere("ia3"), ["default"]),
    "layernorm": (everywhere("layernorm"), []),
    "full fusion, lora decoder": ({"fusion": {"method": "full"}, "decoder": LORA}, ["default"]),
    "two ranks": (
        {"fusion": {"method": "lora", "rank": 2}, "decoder": LORA},
        ["fusion", "decoder"],
    ),
    "every layer": (everywhere("lora", targets="all"), ["default"]),
    "last layers": (everywhere("lora", layers="last:1"), ["default"]),
    "by band": (everywhere("lora", rank=(2, 4, 8), alpha_per_rank=(1, 2, 1)), ["default"]),
    "two methods": ({"fusion": {"method": "ia3"}, "decoder": LORA}, ["fusion", "decoder"]),
    "virtual tokens": (everywhere("ptv2"), []),
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_comes_back_as_it_was(name: str, tmp_path: Path, image: Path) -> None:
    before = moved(RECIPES[name][0])
    before.save(tmp_path)
    after = tuned_model.load(tmp_path)
    assert after.answers(image, QUESTIONS) == before.answers(image, QUESTIONS)
    assert all(torch.equal(after.weights()[n], w) for n, w in before.weights().items())


@pytest.mark.parametrize(("way", "choices"), [("text", ("yes", "no")), ("both", BOTH)])
def test_it_chooses_by_likelihood_where_the_study_did(
    way: str, choices: tuple[str, ...], tmp_path: Path, image: Path
) -> None:
    before = moved(RECIPES["lora"][0])
    chosen = replace(before.described, choose="likelihood", options=way)
    replace(before, described=chosen).save(tmp_path)
    after, model = tuned_model.load(tmp_path), before.model
    wording = chosen.asking.wording(("yes", "no"))
    likeliest = []
    for question in QUESTIONS:
        rows = [
            model.tokenize(question=question, answer=choice, image=0, wording=wording)
            for choice in choices
        ]
        device = next(before.network.parameters()).device
        images_1SSC = load_images([image], model.image_size)
        batches = [model.collate([row], images_1SSC).to(device) for row in rows]
        means = [float(model.losses(before.network, batch)) for batch in batches]
        losses = [mean * len(row.answer) for mean, row in zip(means, rows, strict=True)]
        likeliest.append(choices[losses.index(min(losses))])
    assert after.answers(image, QUESTIONS, ("yes", "no")) == likeliest
    assert after.answers(image, QUESTIONS) == before.answers(image, QUESTIONS)


@pytest.mark.parametrize("name", RECIPES)
def test_peft_alone_gives_the_same_answers(name: str, tmp_path: Path, image: Path) -> None:
    slots, adapters = RECIPES[name]
    before = moved(slots)
    before.save(tmp_path)
    written = peft_adapter.write(before, tmp_path)
    places = written.adapters
    assert list(places) == adapters
    assert written.network == ("" if name == "virtual tokens" else "BlipForQuestionAnswering")
    if name == "virtual tokens":
        return  # they are no form of peft's: only ours
    network = blip.load(TINY).network
    weights = load_file(tmp_path / tuned_model.WEIGHTS)
    if places:
        network = peft_adapter.load(network, weights, places.values())
    else:
        network.load_state_dict(weights, strict=False)
    theirs = TunedModel(**{**vars(before), "network": network})
    base = TunedModel(**{**vars(before), "network": blip.load(TINY).network})
    asked = QUESTIONS * 4
    assert theirs.answers(image, asked) == before.answers(image, asked)
    rows = [before.model.tokenize(question=q, answer="yes", image=0) for q in QUESTIONS]
    device = next(before.network.parameters()).device
    batch = before.model.collate(rows, np.zeros((1, 96, 96, 3), np.uint8)).to(device)
    with torch.no_grad():
        losses = [t.model.losses(t.network.to(device), batch) for t in (theirs, before, base)]
    assert torch.allclose(losses[0], losses[1], rtol=1e-5)
    assert not torch.allclose(losses[0], losses[2], rtol=1e-3)


def test_as_a_user_of_peft_and_transformers_would(tmp_path: Path, image: Path) -> None:
    before = moved(everywhere("lora", rank=4))
    peft_adapter.write(before, tmp_path)
    model = PeftModel.from_pretrained(BlipForQuestionAnswering.from_pretrained(TINY), tmp_path)
    for question in QUESTIONS:
        row = before.model.tokenize(question=question, answer="", image=0)
        batch = before.model.collate([row], load_images([image], before.model.image_size))
        tokens = model.generate(input_ids=batch.question_BQ, pixel_values=batch.pixels_UCSS)
        answer = before.model.tokenizer.decode(tokens[0], skip_special_tokens=True)
        assert [answer] == before.answers(image, [question])


def test_another_base_or_other_weights_are_refused(tmp_path: Path) -> None:
    before = moved(everywhere("layernorm"))
    before.save(tmp_path)
    text = (tmp_path / tuned_json.FILE).read_text()
    (tmp_path / tuned_json.FILE).write_text(text.replace(before.model.digest, "f" * 64))
    with pytest.raises(BadInput, match="not the one that was tuned"):
        tuned_model.load(tmp_path)
    (tmp_path / tuned_json.FILE).write_text(text.replace('"layernorm"', '"bitfit"'))
    with pytest.raises(BadInput, match="not those of bitfit"):
        tuned_model.load(tmp_path)
    with pytest.raises(BadInput, match="holds no exported model"):
        tuned_model.load(tmp_path / "nowhere")
    weights = before.weights()
    name = min(weights)
    with pytest.raises(BadInput, match=f"not those of layernorm: {re.escape(name)}"):
        tuned_model.build(before.described, weights | {name: torch.ones(3, 3)}, before.model)
    for odd in (weights[name].to(torch.int8), weights[name] * float("nan")):
        with pytest.raises(BadInput, match=f"weight {re.escape(name)} has values that no training"):
            tuned_model.build(before.described, weights | {name: odd}, before.model)


def moved_llava(base: Path, slots: dict[str, dict[str, Any]], image_size: int | None) -> TunedModel:
    """The model of a folder with a recipe, its trained values moved."""
    model = llava.load(base, image_size)
    plain = Recipe.from_plain(slots).plain()
    applied = recipe.apply(Recipe.from_plain(plain), model, share_weights(model.network), seed=3)
    described = Description(
        model=str(base),
        digest=model.digest,
        recipe=plain,
        seed=3,
        precision="fp32",
        image_size=image_size,
        answer_tokens=4,
        beams=2,
    )
    weights = {name: p.detach() + 0.5 for name, p in applied.parameters.items()}
    return tuned_model.build(described, weights)


def test_a_llava_comes_back_as_it_was(tmp_path: Path, image: Path) -> None:
    base = made_llava.write(tmp_path / "base")
    everywhere = {slot: {"method": "lora", "everywhere": True} for slot in Llava.slots}
    before = moved_llava(base, everywhere, 48)
    before.save(tmp_path)
    after = tuned_model.load(tmp_path)
    assert after.described == before.described and after.model.image_size == 48
    assert after.answers(image, QUESTIONS) == before.answers(image, QUESTIONS)


LLAVA_RECIPES = {
    "lora": ({"vision": LORA, "decoder": LORA}, ["default"], None),
    "ia3": ({"decoder": {"method": "ia3"}}, ["default"], None),
    "full connector, lora decoder": (
        {"connector": {"method": "full"}, "decoder": LORA},
        ["default"],
        peft_adapter.BASE,
    ),
    "layernorm": ({"decoder": {"method": "layernorm"}}, [], peft_adapter.BASE),
}


@pytest.mark.parametrize(
    ("name", "published"),
    [*((name, "") for name in LLAVA_RECIPES), ("full connector, lora decoder", "llava-hf")],
)
def test_transformers_and_peft_alone_have_the_llava(
    name: str, published: str, tmp_path: Path, image: Path
) -> None:
    """Though its parts have names of their own here, and others where they were published."""
    slots, adapters, weights = LLAVA_RECIPES[name]
    folder = made_llava.write(tmp_path / "base", "mistral")
    if published:
        made_llava.rename(folder, published)
    before = moved_llava(folder, slots, None)
    before.save(tmp_path)
    written = peft_adapter.write(before, tmp_path)
    assert written.network == "LlavaForConditionalGeneration"
    assert list(written.adapters) == adapters
    assert (written.weights.name if written.weights else None) == weights
    base: Any = LlavaForConditionalGeneration.from_pretrained(folder)
    if weights:
        left = base.load_state_dict(load_file(tmp_path / weights), strict=False)
        assert not left.unexpected_keys
    whole = PeftModel.from_pretrained(base, tmp_path) if adapters else base
    said = set()
    for question in QUESTIONS:
        row = before.model.tokenize(question=question, answer="", image=0)
        batch = before.model.collate([row], load_images([image], before.model.image_size))
        tokens = whole.generate(
            input_ids=batch.question_BQ,
            attention_mask=batch.question_mask_BQ,
            pixel_values=batch.pixels_UCSS,
            max_new_tokens=4,
            num_beams=2,
            do_sample=False,
        )[0, batch.question_BQ.shape[1] :]
        answer = before.model.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert [answer] == before.answers(image, [question])
        said.add(answer)
    untouched = tuned_model.TunedModel(**{**vars(before), "network": before.model.network})
    assert [untouched.answers(image, [q]) for q in QUESTIONS] != [
        before.answers(image, [q]) for q in QUESTIONS
    ]


def test_a_connector_that_transformers_lacks_stays_in_our_form(tmp_path: Path) -> None:
    base = made_llava.write(tmp_path / "base", mm_projector_type="linear")
    before = moved_llava(base, {"decoder": LORA}, None)
    assert peft_adapter.write(before, tmp_path) == peft_adapter.NOTHING
    assert not (tmp_path / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": None}, ": model should be a text, not null"),
        ({"digest": 7}, ": digest should be a text, not 7"),
        ({"recipe": {"decoder": "lora"}}, ": recipe.decoder should be an object, not 'lora'"),
        ({"precision": "fp7"}, ": precision must be fp32 or bf16, not 'fp7'"),
        ({"choose": "best"}, ": choose must be named or likelihood, not 'best'"),
        ({"options": "all"}, ": options must be text or letter or both, not 'all'"),
        ({"image_size": "x"}, ": image_size should be a whole number, not 'x'"),
        ({"beams": 0}, ": beams must be at least 1, got 0"),
        ({"answer_tokens": -1}, ": answer_tokens must be at least 1, got -1"),
        ({"version": 9}, " is of version 9; this reads 1"),
    ],
)
def test_a_wrong_field_of_a_description_is_named(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    described = {"model": "tiny", "digest": "", "recipe": {}, "seed": 0, "precision": "fp32"}
    file = tmp_path / tuned_json.FILE
    file.write_text(json.dumps(described | changed))
    with pytest.raises(BadInput, match=re.escape(f"{file}{said}")) as error:
        tuned_model.load(tmp_path)
    assert "\n" not in str(error.value)
    file.write_text("[" * 100_000)
    with pytest.raises(BadInput, match="is no JSON: maximum recursion"):
        tuned_model.load(tmp_path)
