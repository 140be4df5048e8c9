"""The family of many classes: each gives what transformers gives for the same folder.

What every family promises is in ``test_families``, for each class too.
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
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from tests.trainables import made_image_text
from tests.trainables.conftest import NEEDS, WORDS
from tests.trainables.made_image_text import CLASSES, SIZE
from trainables import model_lookup, recipe
from trainables.data.common.wording import Asking
from trainables.errors import BadInput
from trainables.export import peft_adapter, tuned_model
from trainables.export.tuned_json import Description
from trainables.memory import footprint
from trainables.memory.footprint import BatchShape
from trainables.models import image_text_to_text
from trainables.models.common.image_text.inputs import AS_IT_IS
from trainables.models.common.prompt import image_words
from trainables.models.common.quantisation import slot_bits
from trainables.models.image_text_to_text import ImageTextToText
from trainables.recipe import Recipe
from trainables.weight_sharing import share_weights

pytestmark = NEEDS
QUICK = ("gemma3", "qwen2_5_vl", "mistral3")
SLOW = [pytest.param(kind, marks=() if kind in QUICK else (pytest.mark.slow,)) for kind in CLASSES]
QUESTIONS = ["is this a ct ?", "where is the lesion ?", "where ?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model folder of a class, written once."""
    root, written = tmp_path_factory.mktemp("models"), dict[str, Path]()

    def write(kind: str) -> Path:
        if kind not in written:
            written[kind] = made_image_text.write(root / kind, kind, WORDS)
        return written[kind]

    return write


def load(path: Path) -> ImageTextToText:
    return image_text_to_text.load(path, image_size=SIZE)


def noise(images: int = 1) -> Any:
    drawn = np.random.default_rng(0)
    return drawn.integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)


def as_transformers(model: ImageTextToText, network: Any, question: str, image: Any) -> str:
    """The answer that transformers' own network gives, of pixels."""
    row = model.tokenize(question=question, answer="", image=0)
    batch = model.collate([row], image)
    types = (batch.question_BQ == model.config.image_token_id).long()
    if model.config.model_type in image_text_to_text.PREFIX:
        types = torch.zeros_like(types)
    tokens = network.generate(
        input_ids=batch.question_BQ,
        attention_mask=batch.question_mask_BQ,
        **{
            n: v
            for n, v in model.layout.encoded(batch.pixels_UCSS).items()
            if n != "vision_feature_layer"
        },
        **dict.fromkeys(model.types, types),
        eos_token_id=model.inputs.prompt.end,
        pad_token_id=model.inputs.pad,
        max_new_tokens=6,
        do_sample=False,
    )
    words = tokens[0, batch.question_BQ.shape[1] :]
    said: str = model.inputs.tokenizer.decode(words, skip_special_tokens=True)
    return said.strip()


@pytest.mark.parametrize("kind", SLOW)
def test_pixels_are_those_of_the_image_processor(kind: str, folder: Callable[[str], Path]) -> None:
    model, images = load(folder(kind)), AutoImageProcessor.from_pretrained(folder(kind))
    settings: dict[str, Any] = {n: v for n, v in AS_IT_IS.items() if hasattr(images, n)}
    if model.layout.tiles:
        settings |= {"image_grid_pinpoints": [[SIZE, SIZE]]}
    theirs = images(noise()[0], return_tensors="pt", **settings)
    ours = model.layout.encoded(model.inputs.pixels(noise()))
    torch.testing.assert_close(
        ours["pixel_values"].flatten(), theirs["pixel_values"].float().flatten()
    )
    for name in ("image_grid_thw", "image_sizes"):
        assert name not in ours or ours[name].tolist() == torch.as_tensor(theirs[name]).tolist()


@pytest.mark.parametrize("kind", SLOW)
def test_it_answers_as_transformers_does(kind: str, folder: Callable[[str], Path]) -> None:
    answers_as_transformers(folder(kind))


def test_a_class_that_is_named_nowhere_is_done_too(tmp_path: Path) -> None:
    path = made_image_text.write(tmp_path / "glm46v", "glm46v", WORDS, CLASSES["glm4v"])
    assert model_lookup.family_of(str(path)) == (model_lookup.GENERIC, path)
    answers_as_transformers(path)


def answers_as_transformers(path: Path) -> None:
    model = load(path)
    auto: Any = AutoModelForImageTextToText
    network = auto.from_pretrained(path).eval()
    if model.layout.tiles:
        network.config.image_grid_pinpoints = [[SIZE, SIZE]]
    rows = [model.tokenize(question=q, answer="", image=0) for q in QUESTIONS]
    ours = model.answers(model.network, model.collate(rows, noise()), tokens=6)
    assert ours == [as_transformers(model, network, q, noise()) for q in QUESTIONS]


@pytest.mark.parametrize("kind", SLOW)
def test_an_adapter_is_loaded_by_peft_alone(
    kind: str, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model = load(folder(kind))
    plain = Recipe.from_plain(
        {slot: {"method": "lora", "targets": "all", "everywhere": True} for slot in model.slots}
    )
    applied = recipe.apply(plain, model, share_weights(model.network), seed=3)
    drawn = torch.Generator().manual_seed(0)
    weights = {
        name: p.detach() + 0.2 * torch.randn(p.shape, generator=drawn)
        for name, p in applied.parameters.items()
    }
    described = Description(
        model=str(folder(kind)),
        digest=model.digest,
        recipe=plain.plain(),
        seed=3,
        precision="fp32",
        image_size=SIZE,
    )
    tuned = tuned_model.build(described, weights, model)
    written = peft_adapter.write(tuned, tmp_path)
    assert written.network.endswith("ForConditionalGeneration")
    auto: Any = AutoModelForImageTextToText
    theirs: Any = PeftModel.from_pretrained(auto.from_pretrained(folder(kind)), tmp_path).eval()
    if model.layout.tiles:
        theirs.base_model.model.config.image_grid_pinpoints = [[SIZE, SIZE]]
    rows = [model.tokenize(question=q, answer="", image=0) for q in QUESTIONS]
    batch = model.collate(rows, noise())
    ours = model.answers(tuned.network, batch, tokens=6)
    assert ours == [as_transformers(model, theirs, q, noise()) for q in QUESTIONS]
    assert ours != model.answers(model.network, batch, tokens=6)


@pytest.mark.parametrize("kind", SLOW)
def test_arranging_is_undone(kind: str, folder: Callable[[str], Path]) -> None:
    model = load(folder(kind))
    auto: Any = AutoModelForImageTextToText
    before = auto.from_pretrained(folder(kind)).state_dict()
    after = model.to_transformers(share_weights(model.network)).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", SLOW)
def test_memory_is_predicted_without_weights(kind: str, folder: Callable[[str], Path]) -> None:
    predicts_memory(folder(kind))


def test_memory_is_predicted_where_positions_are_scaled_by_the_largest(tmp_path: Path) -> None:
    """InternVL3 has it: transformers looks at the positions' values, which fake tensors lack."""
    path = made_image_text.write(tmp_path / "internvl", "internvl", WORDS)
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["rope_parameters"] |= {"rope_type": "dynamic", "factor": 2.0}
    (path / "config.json").write_text(json.dumps(config))
    assert load(path).network.get_decoder().rotary_emb.rope_type == "dynamic"
    predicts_memory(path)


def predicts_memory(path: Path) -> None:
    model = image_text_to_text.skeleton(path, image_size=SIZE)
    assert all(p.is_meta for p in model.network.parameters())
    plain = Recipe.from_plain({slot: {"method": "full"} for slot in model.slots})
    network = share_weights(model.network)
    applied = recipe.apply(plain, model, network, seed=0)
    shape = BatchShape(questions=4, images=2, question_tokens=40, answer_tokens=4)
    found = footprint.predict(model, network, applied, training=shape, evaluation=shape)
    assert found.activations.keys() >= {"vision", "decoder"}
    assert found.trained == 4 * applied.trained_parameters


def with_template(folder: Path, changed: Callable[[str], str]) -> Path:
    """A model folder whose chat template is changed."""
    path = made_image_text.write(folder / "qwen3_5", "qwen3_5", WORDS)
    template = path / "chat_template.jinja"
    template.write_text(changed(template.read_text()))
    return path


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking"])
def test_what_a_template_asks_for_is_fixed(switch: str, tmp_path: Path) -> None:
    """It is asked not to think, and the date of today is always the same."""
    asks = "{{ strftime_now('%Y-%m-%e %F') }}{% if " + switch + " is not false %}where{% endif %}%"
    prompt = load(with_template(tmp_path, lambda template: asks + template)).inputs.prompt
    assert prompt.text.startswith("2026-01- 1 2026-01-01%<bos>")


def test_a_model_that_always_thinks_has_thought_already(tmp_path: Path) -> None:
    """Templates without a switch, as those of Qwen3-VL's thinking models, close the thought."""
    path = with_template(
        tmp_path, lambda template: template.replace("assistant\n", "assistant\n<think>\n")
    )
    assert load(path).inputs.prompt.text.endswith("assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("{{ datetime.now() }}", "can't be rendered: 'datetime' is undefined .* strftime_now"),
        ("{{ strftime_now('%Q') }}", "can't be rendered: strftime_now does not know %Q"),
        ("{{ raise_exception('not\nthis') }}", "can't be rendered: not this; put"),
        ("\n{% if %}", "is no Jinja template: line 2: Expected an expression"),
        ("{{ 'a' | nothing }}", "is no Jinja template: line 1: No filter named 'nothing'"),
    ],
)
def test_a_template_that_is_refused_says_why(changed: str, said: str, tmp_path: Path) -> None:
    path = with_template(tmp_path, lambda template: changed + template)
    with pytest.raises(BadInput, match=r"template of qwen3_5 \(chat_template.jinja\) " + said) as e:
        load(path)
    assert "\n" not in str(e.value)


def test_a_template_for_texts_alone_is_refused(tmp_path: Path) -> None:
    """What its processor has around an image would be missing."""
    path = with_template(tmp_path, lambda _: "{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(BadInput, match=r"does not show <\|image_pad\|> and the question, once"):
        load(path)


@pytest.mark.parametrize("name", ["prompt", "system"])
def test_a_word_for_the_image_is_refused_in_what_the_user_gives(
    name: str, folder: Callable[[str], Path]
) -> None:
    model = load(folder("gemma3"))
    text = f"<image_soft_token> {'{question}' * (name == 'prompt')}"
    wording = Asking(**{name: text}).wording(["yes", "no"])
    with pytest.raises(
        BadInput, match=f"{name} '<image_soft_.* has <image_soft_token>, which stands"
    ):
        model.tokenize(question="where ?", answer="no", image=0, wording=wording)


def test_a_word_for_the_image_is_left_out_of_questions_options_and_answers(
    folder: Callable[[str], Path],
) -> None:
    model = load(folder("gemma3"))
    plain, *odd = (
        model.tokenize(
            question=f"{word}where ?",
            answer=f"no {word}",
            image=0,
            wording=Asking().wording(["yes", f"no{word}"]),
        )
        for word in ("", "<start_of_image>", "<image_soft_token>")
    )
    assert image_words(model) == ["<start_of_image>", "<image_soft_token>"]
    assert odd == [plain, plain]


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        ("gemma3", 48, "--image-size 48: gemma3 takes images of 32 px only"),
        ("qwen2_5_vl", 40, "--image-size 40 is no multiple of 16.*; 32 and 48 are"),
    ],
)
def test_an_image_size_is_checked(
    kind: str, size: int, said: str, folder: Callable[[str], Path]
) -> None:
    with pytest.raises(BadInput, match=said):
        image_text_to_text.load(folder(kind), image_size=size)


def test_any_size_is_448_pixels_or_a_little_less(folder: Callable[[str], Path]) -> None:
    assert image_text_to_text.load(folder("qwen2_5_vl")).image_size == 448


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "mllama"}, "'mllama' can't be tuned here: its decoder reads the image by"),
        ({"model_type": "gemma4"}, "'gemma4' can't be tuned here: .* peft refuses"),
        (
            {"model_type": "gpt2"},
            "model_type 'gpt2'; there are: blip, .*llava, and what transformers",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(config: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=said):
        model_lookup.family_of(str(tmp_path))


def test_experts_that_no_method_reaches_are_told() -> None:
    """Weights of several experts at once are bare parameters, which LoRA does not wrap."""
    made = CLASSES["qwen3_vl"]
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    made = replace(made, text={**made.text, **experts})
    words = made_image_text.tokenizer("qwen3_vl", WORDS, made)
    network = made_image_text.network("qwen3_vl_moe", words, made)
    model = ImageTextToText(name="moe", digest="", network=network, image_size=SIZE, inputs=None)
    assert [slot.experts for slot in slot_bits(model)] == [False, False, True]
    for method, told in (("lora", [False, False, True]), ("full", [False] * 3)):
        plain = {slot: {"method": method} for slot in ("vision", "decoder")}
        plain["connector"] = {"method": "frozen"}
        applied = recipe.apply(
            Recipe.from_plain(plain), model, share_weights(model.network), seed=0
        )
        assert {c.slot: c.without_experts for c in applied.counts} == dict(
            zip(("vision", "connector", "decoder"), told, strict=True)
        )


def test_an_open_clip_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"open_clip model, which .* writes no answers"):
        model_lookup.family_of(str(tmp_path))


def test_a_class_that_no_family_knows_is_of_the_generic_one(
    folder: Callable[[str], Path],
) -> None:
    path = folder("gemma3")
    assert model_lookup.family_of(str(path)) == (model_lookup.GENERIC, path)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("tokenizer.json", "has no tokenizer; it needs"),
        ("chat_template.jinja", "gemma3 has no chat template"),
        ("model.safetensors", "can't be read as a gemma3 model"),
        ("preprocessor_config.json", "the tokenizer or processor of gemma3 can't be read"),
    ],
)
def test_a_missing_file_is_one_line(file: str, said: str, tmp_path: Path) -> None:
    path = made_image_text.write(tmp_path / "gemma3", "gemma3", WORDS)
    (path / file).unlink()
    with pytest.raises(BadInput, match=said) as error:
        load(path)
    assert "\n" not in str(error.value)


def changed(path: Path, file: str, **settings: Any) -> None:
    """Set settings in a JSON file of a folder."""
    known = json.loads((path / file).read_text(encoding="utf-8"))
    (path / file).write_text(json.dumps(known | settings), encoding="utf-8")


def test_tokens_that_a_processor_adds_are_none_of_the_models(tmp_path: Path) -> None:
    """PaliGemma's adds a thousand that name places in an image."""
    model = load(made_image_text.write(tmp_path / "paligemma", "paligemma", WORDS))
    assert len(model.inputs.tokenizer) == len(model.network.get_input_embeddings().weight)


def test_the_processors_chat_template_is_the_one_that_counts(tmp_path: Path) -> None:
    """A tokenizer may still have that of the language model that a VLM was made from."""
    path = made_image_text.write(tmp_path / "mistral3", "mistral3", WORDS)
    asked = load(path).inputs.prompt.text
    template = path / "chat_template.jinja"
    (path / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    changed(path, "tokenizer_config.json", chat_template="{{ messages[0].content }} [INST]")
    assert load(path).inputs.prompt.text == asked


def test_of_several_chat_templates_the_one_without_a_name_counts(tmp_path: Path) -> None:
    path = made_image_text.write(tmp_path / "gemma3", "gemma3", WORDS)
    asked = load(path).inputs.prompt.text
    more = path / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("{{ tools }}")
    assert load(path).inputs.prompt.text == asked


def test_what_an_image_processor_leaves_out_is_left_out(tmp_path: Path) -> None:
    path, images = made_image_text.write(tmp_path / "gemma3", "gemma3", WORDS), noise()
    changed(path, "preprocessor_config.json", do_rescale=False, do_normalize=False)
    pixels = load(path).inputs.pixels(images)
    assert torch.equal(pixels, torch.from_numpy(images).permute(0, 3, 1, 2).float())


@pytest.mark.parametrize(
    ("kind", "file", "settings", "said"),
    [
        (
            "gemma3",
            "processor_config.json",
            {"image_seq_length": 8},
            "gemma3 writes 8 tokens for an image, but the network has 4 features of it",
        ),
        (
            "qwen2_5_vl",
            "preprocessor_config.json",
            {"merge_size": 1},
            "qwen2_5_vl writes 16 tokens for an image, but the network has 4 features of it",
        ),
        (
            "llava_next",
            "config.json",
            {"vision_feature_layer": -20},
            "vision_feature_layer must be from -4 to 3, .*, not -20",
        ),
        (
            "gemma3",
            "config.json",
            {"vision_config": {"model_type": "timm_wrapper"}},
            "models of type gemma3 can't be tuned if their vision_config has no image_size",
        ),
        *(
            ("gemma3", "config.json", {"image_token_id": token}, "has no token .*image_token_id")
            for token in (-1, 10**6, True)
        ),
        *(
            ("gemma3", "preprocessor_config.json", settings, "gemma3, in preprocessor_config.json,")
            for settings in (
                {"image_std": [0.5, 0, 0.5]},
                {"image_std": [0.5, 0.5]},
                {"image_mean": [0.5, 0.5, float("nan")]},
                {"rescale_factor": 0},
            )
        ),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(
    kind: str, file: str, settings: Any, said: str, tmp_path: Path
) -> None:
    path = made_image_text.write(tmp_path / kind, kind, WORDS)
    changed(path, file, **settings)
    with pytest.raises(BadInput, match=said) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_deviation_may_be_of_all_colours(tmp_path: Path) -> None:
    path = made_image_text.write(tmp_path / "gemma3", "gemma3", WORDS)
    changed(path, "preprocessor_config.json", image_std=0.25, do_rescale=False)
    changed(path, "preprocessor_config.json", image_mean=[0, 0, 0])
    pixels = load(path).inputs.pixels(noise())
    assert torch.equal(pixels, torch.from_numpy(noise()).permute(0, 3, 1, 2).float() / 0.25)


def test_a_wrong_number_of_tokens_is_told_when_the_network_runs(tmp_path: Path) -> None:
    """A processor file, for classes whose number of image tokens is not known without one."""
    path = made_image_text.write(tmp_path / "mistral3", "mistral3", WORDS)
    changed(path, "processor_config.json", patch_size=16)
    model = load(path)
    batch = model.collate([model.tokenize(question="where ?", answer="", image=0)], noise())
    said = "mistral3 writes 1 tokens for an image, but the network has 4 features of it"
    with pytest.raises(BadInput, match=said):
        model.losses(model.network, batch)


def test_every_slot_is_one_module(folder: Callable[[str], Path]) -> None:
    """None holds another, also where transformers has the connector inside the encoder."""
    for kind in QUICK:
        model = load(folder(kind))
        parts: list[nn.Module] = [model.network.get_submodule(p) for p in model.slots.values()]
        held = [{*part.modules()} for part in parts]
        assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]
