"""What every model family promises. A family joins by being a file in ``trainables/models``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables import registry
from trainables.data.common.wording import Wording
from trainables.errors import BadInput
from trainables.methods.common.roles import ROLES
from trainables.model_contract import Model, Row, slot
from trainables.model_lookup import GENERIC
from trainables.recipe import Recipe, apply
from trainables.weight_sharing import share_weights
from trainables.workload import Workload

QUESTIONS = 10  # of the made-up validation split
NOT_LINEAR = {"norm", "self_attention", "block", "patch"}
"""Roles of modules that are no linear layers."""
PADDING = (
    "a question's loss or answer depends on the other questions of its batch: padding must be "
    "masked, and positions must not count it"
)
LARGER = (
    "small(words) must draw weights that are large enough for the image and the question to "
    "matter, mostly by initializer_range=0.2 instead of transformers' 0.02"
)


def test_a_family_is_called_as_the_model_type_of_its_folders(model: Model, family: str) -> None:
    network = model.to_transformers(share_weights(model.network))
    config = getattr(model.network if network is None else network, "config", None)
    said = getattr(config, "model_type", family)
    family = family.removeprefix(
        f"{GENERIC}/"
    )  # that of many classes, which has no name of its own
    assert said.replace("-", "_") == family, (
        f"models of trainables/models/{family}.py have the model_type {said!r} in config.json, by "
        f"which their family is found: call the file {said}.py"
    )


def test_the_network_is_frozen_and_in_evaluation_mode(model: Model) -> None:
    modules, parameters = model.network.modules(), model.network.parameters()
    assert not any(part.training for part in modules) and not any(
        parameter.requires_grad for parameter in parameters
    ), f"load and small of {model.name} must return network.eval().requires_grad_(False)"


def test_every_preset_has_the_slots_of_the_family(model: Model, family: str) -> None:
    family, _, kind = family.partition("/")
    module = registry.FAMILIES.find(family)
    for preset, file in registry.presets().items():
        if json.loads(file.read_text())["model_type"] != (kind or family):
            continue
        skeleton = module.skeleton(file)
        assert skeleton.name == preset, "skeleton must call a model hub.name_of(source)"
        assert dict(skeleton.slots) == dict(model.slots)
        assert all(parameter.is_meta for parameter in skeleton.network.parameters()), (
            f"skeleton({file.name!r}) of family {family} must build its network under "
            'torch.device("meta"), so that it takes no memory'
        )
        for name in skeleton.slots:
            assert slot(skeleton, skeleton.network, name).roles.keys() == (
                slot(model, model.network, name).roles.keys()
            ), f"slot {name!r} of preset {preset!r} has other roles than in small(words)"


def test_a_loss_does_not_depend_on_its_batch(workload: Workload) -> None:
    model = workload.model
    together = model.losses(model.network, workload.batch("validation", range(QUESTIONS)))
    assert together.shape == (QUESTIONS,), (
        f"losses must return a loss for each question, of shape (B,), as answer_losses does, not "
        f"{tuple(together.shape)} for B = {QUESTIONS}"
    )
    for i in range(QUESTIONS):
        alone = model.losses(model.network, workload.batch("validation", [i]))
        torch.testing.assert_close(
            alone[0], together[i], atol=1e-5, rtol=0, msg=lambda said: f"{PADDING}: {said}"
        )
    backwards = model.losses(model.network, workload.batch("validation", range(QUESTIONS)[::-1]))
    torch.testing.assert_close(backwards.flip(0), together, atol=1e-5, rtol=0)


def test_losses_differ(workload: Workload) -> None:
    """Otherwise whatever is said of losses here would hold of nothing."""
    model = workload.model
    losses = model.losses(model.network, workload.batch("validation", range(5)))
    assert len({round(float(loss), 3) for loss in losses}) == 5, LARGER


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_does_not_depend_on_its_batch(workload: Workload, beams: int) -> None:
    model = workload.model

    def answers(questions: Sequence[int], tokens: int = 12) -> list[str]:
        batch = workload.batch("validation", questions)
        return model.answers(model.network, batch, tokens=tokens, beams=beams)

    together = answers(range(QUESTIONS))
    assert isinstance(together, list) and all(isinstance(answer, str) for answer in together), (
        f"answers must return a list of B texts, not {together!r}"
    )
    assert together == [answers([i])[0] for i in range(QUESTIONS)], PADDING
    assert together == answers(range(QUESTIONS)[::-1])[::-1], PADDING
    assert len(set(together)) > 1, f"all questions have one answer, {together[0]!r}: {LARGER}"
    assert answers(range(QUESTIONS), tokens=2) != together, "answers must stop after `tokens`"


def test_label_smoothing_is_of_the_answers_own_tokens(workload: Workload) -> None:
    model = workload.model
    batch = workload.batch("validation", range(QUESTIONS))
    plain = model.losses(model.network, batch)
    assert torch.equal(model.losses(model.network, batch, smoothing=0.0), plain)
    smoothed = model.losses(model.network, batch, smoothing=0.1)
    # A word of a likelihood that happens to be the mean of all has the loss that it had.
    assert (smoothed - plain).abs().median() > 1e-3
    for i in range(QUESTIONS):
        alone = workload.batch("validation", [i])
        own = model.losses(model.network, alone, smoothing=0.1)[0]
        torch.testing.assert_close(own, smoothed[i], atol=1e-5, rtol=0)


def test_an_image_of_several_questions_is_encoded_once(workload: Workload) -> None:
    model = workload.model
    split = workload.rows["train"]
    asked = [i for i, row in enumerate(split) if row.image in (0, 3)]
    seen: list[int] = []
    first = model.network.get_submodule(model.slots[model.stages[0].slots[0]])

    def see(_: nn.Module, args: Any, kwargs: Any) -> None:
        pixels = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        seen.append(pixels.numel())

    hook = first.register_forward_pre_hook(see, with_kwargs=True)
    model.losses(model.network, workload.batch("train", asked[:1]))
    model.losses(model.network, workload.batch("train", asked))
    model.answers(model.network, workload.batch("train", asked))
    hook.remove()
    assert len(asked) > 2
    one, *of_two = seen
    assert of_two == [2 * one, 2 * one], (
        "the first slot of the first stage must be called once by losses and once by answers, "
        f"with each image of the batch once (batch.pixels_UCSS): of one image it saw {one} values, "
        f"of two {of_two}"
    )


def test_the_image_and_the_question_matter(workload: Workload) -> None:
    model = workload.model
    row = workload.rows["train"][0]
    other = next(r for r in workload.rows["train"] if r.question != row.question)
    images = workload.images_NSSC
    cases = {
        "plain": (row, images),
        "blank": (row, np.zeros_like(images)),
        "asked": (Row(image=row.image, question=other.question, answer=row.answer), images),
    }
    plain, blank, asked = (
        model.losses(model.network, model.collate([asked_of], pixels).to(workload.device))[0]
        for asked_of, pixels in cases.values()
    )
    assert abs(plain - blank) > 1e-4, f"losses hardly depend on the image: {LARGER}"
    assert abs(plain - asked) > 1e-4, f"losses hardly depend on the question: {LARGER}"


def test_running_adds_no_hooks(workload: Workload) -> None:
    """Otherwise a copy that was made before differs from the base by more than its method."""
    model = workload.model
    network = share_weights(model.network)

    def hooks() -> int:
        modules = network.modules()
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)

    before = hooks()
    model.losses(network, workload.batch("train", range(2)))
    model.answers(network, workload.batch("train", range(2)), tokens=2)
    assert hooks() == before, (
        "losses or answers added hooks, as transformers does where hidden states are asked for: "
        "load must add them"
    )


def test_the_slots_hold_all_that_runs(workload: Workload) -> None:
    """Every parameter of a slot has a gradient; what is in none is never run."""
    model = workload.model
    network = share_weights(model.network).requires_grad_(True)
    model.losses(network, workload.batch("train", range(5))).sum().backward()
    for name, parameter in network.named_parameters():
        in_slot = any(name.startswith(f"{path}.") for path in model.slots.values())
        assert (parameter.grad is not None and bool(parameter.grad.any())) == in_slot, (
            f"{name} is {'' if in_slot else 'not '}in a slot, so losses must "
            f"{'' if in_slot else 'not '}depend on it"
        )


def test_every_role_of_parts_exists(model: Model) -> None:
    for kind, of in model.parts.items():
        for attribute, role in of.items():
            assert role in ROLES, (
                f"Model.parts gives {attribute!r} of {kind.__name__} the role {role!r}; there are: "
                f"{', '.join(ROLES)}"
            )
    unknown = {(kind, attribute) for kind, of in model.parts.items() for attribute in of}
    for module in model.network.modules():
        for attribute in model.parts.get(type(module), {}):
            with contextlib.suppress(AttributeError):
                module.get_submodule(attribute)
                unknown.discard((type(module), attribute))
    kinds = {type(module) for module in model.network.modules()}
    wrong = [f"{name!r} of {kind.__name__}" for kind, name in unknown if kind in kinds]
    assert not wrong, f"Model.parts names {', '.join(wrong)}, which no module of the type has"


def test_every_role_is_of_layers_that_exist(model: Model) -> None:
    # An attention that gets the tokens of all images in one row is no self_attention.
    transformer = {"norm", "block", "attention_output", "ffn_in", "ffn_out"}
    for name in model.slots:
        there = slot(model, model.network, name)
        lacking = sorted(transformer - set(there.roles))
        if "qkv" not in there.roles:
            lacking += sorted({"query", "key", "value"} - set(there.roles))
        assert not lacking or set(there.roles) <= {"projection", "norm"}, (
            f"slot {name!r} of {model.name} has no layers of the roles {', '.join(lacking)}: name "
            "in Model.parts the attributes, of the types of its modules, that play them"
        )
        layers = [layer for layers in there.roles.values() for layer in layers]
        assert len(layers) == len(set(layers)), "a layer has one role"


def test_linear_layers_with_a_role_are_called(workload: Workload) -> None:
    """A method that wraps a layer is without effect if only its weight is read."""
    model = workload.model
    silent: dict[str, nn.Module] = {}
    for name in model.slots:
        there = slot(model, model.network, name)
        for role in there.roles.keys() - NOT_LINEAR:
            for layer in there.roles[role]:
                module = there.module.get_submodule(layer)
                assert isinstance(module, nn.Linear), (
                    f"{layer} of slot {name!r}, in role {role}, is a {type(module).__name__}, but "
                    "methods are for nn.Linear: put its weight into one as the model is loaded"
                )
                silent[f"{layer} of slot {name!r}"] = module
    places = {module: place for place, module in silent.items()}

    def hear(module: nn.Module, *_: Any) -> None:
        silent.pop(places[module], None)

    handles = [module.register_forward_hook(hear) for module in places]
    model.losses(model.network, workload.batch("validation", range(2)))
    for handle in handles:
        handle.remove()
    assert not silent, (
        f"losses do not call {', '.join(silent)}: a layer with a role must be called as a module, "
        "which nn.MultiheadAttention and nn.TransformerEncoderLayer do not do"
    )


@pytest.mark.parametrize("role", ["block", "self_attention"])
def test_tokens_come_first_and_are_returned(workload: Workload, role: str) -> None:
    """Methods put tokens before those that a block or a self_attention is given."""
    model = workload.model
    wrong: list[str] = []

    def see(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tokens_BTD = args[0] if args else kwargs.get("hidden_states")
        first = output[0] if isinstance(output, tuple) else output
        if not isinstance(tokens_BTD, Tensor):
            wrong.append(
                f"{type(module).__name__} must be given its tokens as first argument or as "
                "hidden_states"
            )
        elif role == "self_attention" and len(args) > 1:
            wrong.append(
                f"{type(module).__name__} must be given all but its tokens by name, a mask as "
                "attention_mask and a cache as past_key_values"
            )
        elif not isinstance(first, Tensor) or first.shape != tokens_BTD.shape:
            wrong.append(
                f"{type(module).__name__} must return as many tokens as it is given, in shape "
                "(B, T, D), alone or first in a tuple"
            )

    for name in model.slots:
        there = slot(model, model.network, name)
        found = [there.module.get_submodule(layer) for layer in there.roles.get(role, ())]
        handles = [part.register_forward_hook(see, with_kwargs=True) for part in found]
        model.losses(model.network, workload.batch("validation", range(2)))
        for handle in handles:
            handle.remove()
    assert not wrong, wrong[0]


def test_every_norm_and_linear_layer_is_found(model: Model) -> None:
    """But for heads, which are no part of a stack."""
    for name, path in model.slots.items():
        module = model.network.get_submodule(path)
        there = slot(model, model.network, name)
        norms = {n for n, m in module.named_modules() if "norm" in type(m).__name__.lower()}
        assert set(there.roles.get("norm", ())) == norms, (
            f"norms of slot {name!r} of {model.name} must be an nn.LayerNorm, an nn.RMSNorm or of "
            "a class whose name ends in RMSNorm, and have no role in Model.parts"
        )
        linear = {n for n, m in module.named_modules() if type(m) is nn.Linear}
        others = linear - {layer for layers in there.roles.values() for layer in layers}
        heads = {n for n in others if n == "lm_head" or n.startswith("cls.")}
        assert others == heads, (
            f"linear layers of slot {name!r} of {model.name} have no role in Model.parts: "
            f"{', '.join(sorted(others - heads))}"
        )


def test_an_unknown_slot_is_refused(model: Model) -> None:
    known = next(iter(model.slots))
    recipe = Recipe.from_plain({f"{known}s": {"method": "full"}})
    with pytest.raises(BadInput, match=f"unknown slot '{known}s'; did you mean '{known}'"):
        apply(recipe, model, share_weights(model.network), seed=0)


def test_texts_around_a_question_are_asked_and_never_cut(model: Model) -> None:
    def asked(question: str, **texts: str) -> tuple[int, ...]:
        wording = Wording(**texts)
        return model.tokenize(question=question, answer="no", image=0, wording=wording).question

    bare = asked("is this a ct ?")
    assert bare == model.tokenize(question="is this a ct ?", answer="no", image=0).question
    for texts in ({"before": "where is the liver ? "}, {"after": "\nA: liver\nB: chest"}):
        assert len(asked("is this a ct ?", **texts)) >= len(bare) + 4, (
            "tokenize must put wording.before before the question, and wording.after after it"
        )
    long = "ct " * 999
    assert asked(long, after=" liver") != asked(long, after=" chest"), (
        "tokenize may cut off a question, but not wording.after, which has its options"
    )


def test_a_system_message_is_put_to_the_model_or_refused(model: Model) -> None:
    row = model.tokenize(question="where ?", answer="no", image=0)
    try:
        told = model.tokenize(
            question="where ?", answer="no", image=0, wording=Wording(system="left right")
        )
    except BadInput as error:
        assert "takes no system message" in str(error)
    else:
        assert told.question != row.question and told.answer == row.answer


def test_the_sum_of_a_loss_is_of_an_answers_tokens_and_its_end(workload: Workload) -> None:
    model, rows = workload.model, workload.rows["validation"]
    batch = workload.batch("validation", range(QUESTIONS))
    counted = model.losses(model.network, batch, summed=True) / model.losses(model.network, batch)
    given = {len(rows[i].answer) - round(float(counted[i]), 3) for i in range(QUESTIONS)}
    assert given in ({0.0}, {1.0}), "of an answer's tokens at most the first, its begin, is given"
