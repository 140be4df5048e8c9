"""The LLaVA family: transformers' own forward pass, prompts, published counts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlavaForConditionalGeneration

from tests.trainables import made_llava
from tests.trainables.conftest import SMALL, WORDS, made_up
from trainables import registry
from trainables.data.common.wording import Asking, Wording
from trainables.errors import BadInput
from trainables.models import llava
from trainables.models.common import prompt as prompts
from trainables.models.common.llava_network import Parts
from trainables.models.llava import Llava
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


@pytest.fixture(params=["llama", "mistral"], scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as transformers writes it."""
    return made_llava.write(tmp_path_factory.mktemp("llava"), request.param)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Workload:
    """What is loaded from it, with questions."""
    return made_up(llava.load(folder))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """The same weights in transformers' hands, nothing cut off."""
    return LlavaForConditionalGeneration.from_pretrained(folder).eval()


def test_the_loss_is_that_of_transformers(loaded: Workload, theirs: Any) -> None:
    for i in range(5):
        batch = loaded.batch("validation", [i])
        ours = loaded.model.losses(loaded.model.network, batch)[0]
        prompt = batch.question_BQ
        with torch.no_grad():
            reference = theirs(
                input_ids=torch.cat((prompt, batch.answer_BA), dim=1),
                pixel_values=batch.pixels_UCSS,
                labels=torch.cat((torch.full_like(prompt, -100), batch.answer_BA), dim=1),
            ).loss
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("beams", [1, 3])
def test_the_answer_is_that_of_transformers(loaded: Workload, theirs: Any, beams: int) -> None:
    model = loaded.model
    assert isinstance(model, Llava)
    said = set()
    for i in range(5):
        batch = loaded.batch("validation", [i])
        tokens = theirs.generate(
            input_ids=batch.question_BQ,
            pixel_values=batch.pixels_UCSS,
            attention_mask=batch.question_mask_BQ,
            max_new_tokens=8,
            num_beams=beams,
            do_sample=False,
            eos_token_id=model.end,
            pad_token_id=model.pad,
        )[:, batch.question_BQ.shape[1] :]
        (reference,) = model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        assert model.answers(model.network, batch, tokens=8, beams=beams) == [reference.strip()]
        said.add(reference)
    assert len(said) > 1


def test_a_product_with_frozen_weights_is_one_for_all_questions(loaded: Workload) -> None:
    """And not one for each, for which a CPU copies the weights: those of a vocabulary are large."""
    batch = loaded.batch("train", range(4))
    with Batched() as batched, torch.no_grad():
        loaded.model.losses(loaded.model.network, batch)
        loaded.model.answers(loaded.model.network, batch, tokens=2)
    assert not batched.products


class Batched(TorchDispatchMode):
    """Notes batches of products. An outer product has no weights: older versions of transformers
    make the angles of positions by one."""

    def __init__(self) -> None:
        super().__init__()
        self.products = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default and args[0].shape[-1] > 1:
            self.products.append(f"{args[0].shape} by {args[1].shape}")
        return func(*args, **(kwargs or {}))


def test_it_learns_to_answer(loaded: Workload) -> None:
    everything = Recipe.from_plain({slot: {"method": "full"} for slot in loaded.model.slots})
    trial = Trial(
        loaded, TrialConfig(recipe=everything, lr=3e-3, seed=0, max_examples=960, batch_size=24)
    )
    before = trial.validation_loss()
    trial.train(960)
    assert trial.validation_loss() < before / 4
    answers = [example.answer for example in loaded.dataset.test]
    right = [a == b for a, b in zip(trial.answers("test"), answers, strict=True)]
    assert sum(right) > len(right) / 2


def words(model: Llava, tokens: Any) -> str:
    return " ".join(model.tokenizer.convert_ids_to_tokens(tokens)).replace(" ##", "")


def test_only_the_answer_and_its_end_are_learned(loaded: Workload) -> None:
    model = loaded.model
    assert isinstance(model, Llava)
    row = model.tokenize(question="Is this a CT?", answer="Yes", image=0)
    asked = {
        "llama": "<s> user : <image> is this a ct ? assistant :",
        "mistral": "<s> [ inst ] <image> is this a ct ? [ / inst ]",
    }
    assert words(model, row.question) == asked[model.network.config.text_config.model_type]
    assert words(model, row.answer) == "yes </s>"


def test_the_image_is_as_many_tokens_as_it_has_patches(loaded: Workload) -> None:
    batch = loaded.batch("train", [0, 1, 2])
    assert isinstance(loaded.model, Llava)
    assert (batch.question_BQ == loaded.model.image).sum(1).tolist() == [4, 4, 4]


def test_a_question_that_names_the_image_token_asks_for_no_second_image(loaded: Workload) -> None:
    model = loaded.model
    row = model.tokenize(question="where is the <image> ?", answer="", image=0)
    losses = model.losses(model.network, model.collate([row], loaded.images_NSSC))
    assert row.answer == (row.answer[-1],) and losses.isfinite().all()


def test_long_questions_are_cut(loaded: Workload) -> None:
    rows = [loaded.model.tokenize(question="ct " * n, answer="no", image=0) for n in (300, 999)]
    assert rows[0] == rows[1]
    assert prompts.QUESTION_TOKENS < len(rows[0].question) < prompts.QUESTION_TOKENS + 20


IMAGE_APART = """{% for m in messages %}{{ bos_token }}[{{ m.role }}]{% for c in m.content %}
{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}:"""
ONE_TEXT = "{{ bos_token }}{% for m in messages %}({{ m.content | trim }}){% endfor %}"


@pytest.mark.parametrize("template", [IMAGE_APART, ONE_TEXT])
def test_a_folders_own_chat_template_is_followed(template: str) -> None:
    tokenizer = made_llava.words_tokenizer(WORDS)
    tokenizer.chat_template = template
    network = SMALL["llava"]().network
    assert isinstance(network, Parts)
    model = Llava(name="own", digest="", network=network, tokenizer=tokenizer)
    row = model.tokenize(question="is this a ct ?", answer="yes", image=0)
    assert model.prompt.text.startswith("<s>") and "{question}" in model.prompt.text
    assert row.question.count(tokenizer.bos_token_id) == 1
    assert words(model, row.answer) == "yes </s>"


SYSTEM_AS_TEXT = """{% for m in messages %}{% if m.role == 'system' %}{{ '[sys] ' + m.content }}
{% else %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}
{% endfor %}{% endif %}{% endfor %}:"""


REFUSES_SYSTEM = """{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}
{{ messages[0].content }}"""


def own_template(template: str | None) -> Llava:
    tokenizer = made_llava.words_tokenizer(WORDS)
    tokenizer.chat_template = template
    network = SMALL["llava"]().network
    assert isinstance(network, Parts)
    return Llava(name="own", digest="", network=network, tokenizer=tokenizer)


@pytest.mark.parametrize("template", [IMAGE_APART, ONE_TEXT, SYSTEM_AS_TEXT])
def test_a_system_message_is_where_the_template_puts_it(template: str) -> None:
    model = own_template(template)
    asking = Asking(prompt="{question} yes no", system="left right\n")
    row = model.tokenize(question="is this a ct ?", answer="", image=0, wording=asking.wording())
    said = words(model, row.question)
    assert said.index("left right") < said.index("is this a ct ? yes no")
    assert said.count("<image>") == 1 and "type" not in said


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "it has no chat template"),
        ("{{ messages[-1].content }}", "its chat template refuses it or leaves it out"),
        (REFUSES_SYSTEM, "its chat template refuses it or leaves it out"),
    ],
)
def test_a_system_message_that_no_template_takes_is_refused(template: str, why: str) -> None:
    model, wording = own_template(template), Wording(system="left")
    with pytest.raises(BadInput, match=f"own takes no system message: {why}; put the text into"):
        model.tokenize(question="where ?", answer="", image=0, wording=wording)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ messages[0].role }}", "does not show <image> and the question, once each; mend"),
        ("{{ raise_exception('no') }}", "can't be rendered: no; mend"),
        ("{% if %}", "is no Jinja template: line 1: Expected an expression"),
    ],
)
def test_a_template_that_shows_no_image_is_refused(template: str, said: str) -> None:
    tokenizer = made_llava.words_tokenizer(WORDS)
    tokenizer.chat_template = template
    network = SMALL["llava"]().network
    assert isinstance(network, Parts)
    with pytest.raises(
        BadInput, match=rf"chat template of own \(chat_template in tokenizer_config.json\) {said}"
    ):
        Llava(name="own", digest="", network=network, tokenizer=tokenizer)


def test_positions_are_interpolated_for_images_of_another_size(folder: Path, theirs: Any) -> None:
    model = llava.load(folder, image_size=48)
    workload = made_up(model)
    assert (model.image_size, model.image_tokens) == (48, 9)
    tower = model.network.get_submodule("vision_tower")
    pixels_UCSS = workload.batch("train", [0]).pixels_UCSS
    with torch.no_grad():
        whole = theirs.model.vision_tower(
            pixels_UCSS, interpolate_pos_encoding=True, output_hidden_states=True
        )
        ours = tower(pixels_UCSS).last_hidden_state
    torch.testing.assert_close(ours, whole.hidden_states[-2])
    assert model.losses(model.network, workload.batch("train", [0, 1])).isfinite().all()
    counted = llava.skeleton(folder, image_size=48).network
    assert sum(p.numel() for p in counted.parameters()) == sum(
        p.numel() for p in model.network.parameters()
    )
    with pytest.raises(BadInput, match="no multiple of"):
        llava.load(folder, image_size=47)


TOWERS = {224: 303_179_776, 336: 303_507_456}  # of openai/clip-vit-large-patch14
UNREAD = 12 * 1024**2 + 13 * 1024 + 2 * 1024  # a layer, and the last LayerNorm
LLAMA, MISTRAL = 6_738_415_616, 7_241_732_096  # as their cards say


@pytest.mark.parametrize(
    ("preset", "pixels", "decoder", "connector"),
    [
        ("llava-med-v1", 224, LLAMA, 1024 * 4096 + 4096),
        ("llava-med-v1.5", 336, MISTRAL, 1024 * 4096 + 4096 + 4096**2 + 4096),
    ],
)
def test_counts_are_those_that_are_published(
    preset: str, pixels: int, decoder: int, connector: int
) -> None:
    started = time.perf_counter()
    found = llava.skeleton(registry.presets()[preset])
    assert time.perf_counter() - started < 10
    counts = {
        name: sum(p.numel() for p in found.network.get_submodule(path).parameters())
        for name, path in found.slots.items()
    }
    assert counts == {
        "vision": TOWERS[pixels] - UNREAD,
        "connector": connector,
        "decoder": decoder,
    }
    whole = sum(p.numel() for p in found.network.parameters())
    assert whole == TOWERS[pixels] + connector + decoder
    assert all(p.is_meta for p in found.network.parameters())
