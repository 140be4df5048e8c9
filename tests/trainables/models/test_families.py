"""What every model family promises. A family joins by being a file in ``trainables/models``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from trainables import registry
from trainables.errors import BadInput
from trainables.methods.common.roles import ROLES
from trainables.model_contract import Model, Row, slot
from trainables.recipe import Recipe, apply
from trainables.weight_sharing import share_weights
from trainables.workload import Workload

QUESTIONS = 10  # of the made-up validation split


def test_a_family_is_called_as_the_model_type_of_its_folders(model: Model, family: str) -> None:
    network = model.to_transformers(share_weights(model.network))
    said = family if network is None else network.config.model_type
    assert said == family, (
        f"models of trainables/models/{family}.py have the model_type {said!r} in config.json, by "
        f"which their family is found: call the file {said}.py"
    )


def test_every_preset_has_the_slots_of_the_family(model: Model, family: str) -> None:
    module = registry.FAMILIES.find(family)
    presets = {preset for preset, of in registry.presets().items() if of == family}
    assert presets == set(module.PRESETS), (
        f"PRESETS of trainables/models/{family}.py must be a dict literal of names that no other "
        "family has: it is read without importing the file"
    )
    for preset in presets:
        skeleton = module.skeleton(preset)
        assert skeleton.name == preset
        assert dict(skeleton.slots) == dict(model.slots)
        assert all(parameter.is_meta for parameter in skeleton.network.parameters()), (
            f"skeleton({preset!r}) of family {family} must build its network under "
            'torch.device("meta"), so that it takes no memory'
        )
        for name in skeleton.slots:
            assert slot(skeleton, skeleton.network, name).roles.keys() == (
                slot(model, model.network, name).roles.keys()
            ), f"slot {name!r} of preset {preset!r} has other roles than in small(words)"


def test_a_loss_does_not_depend_on_its_batch(workload: Workload) -> None:
    model = workload.model
    together = model.losses(model.network, workload.batch("validation", range(QUESTIONS)))
    assert together.shape == (QUESTIONS,)
    for i in range(QUESTIONS):
        alone = model.losses(model.network, workload.batch("validation", [i]))
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)
    backwards = model.losses(model.network, workload.batch("validation", range(QUESTIONS)[::-1]))
    torch.testing.assert_close(backwards.flip(0), together, atol=1e-5, rtol=0)


def test_losses_differ(workload: Workload) -> None:
    """Otherwise whatever is said of losses here would hold of nothing."""
    model = workload.model
    losses = model.losses(model.network, workload.batch("validation", range(5)))
    assert len({round(float(loss), 3) for loss in losses}) == 5


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_does_not_depend_on_its_batch(workload: Workload, beams: int) -> None:
    model = workload.model

    def answers(questions: Sequence[int], tokens: int = 12) -> list[str]:
        batch = workload.batch("validation", questions)
        return model.answers(model.network, batch, tokens=tokens, beams=beams)

    together = answers(range(QUESTIONS))
    assert together == [answers([i])[0] for i in range(QUESTIONS)]
    assert together == answers(range(QUESTIONS)[::-1])[::-1]
    assert len(set(together)) > 1
    assert answers(range(QUESTIONS), tokens=2) != together


def test_label_smoothing_is_of_the_answers_own_tokens(workload: Workload) -> None:
    model = workload.model
    batch = workload.batch("validation", range(QUESTIONS))
    plain = model.losses(model.network, batch)
    assert torch.equal(model.losses(model.network, batch, smoothing=0.0), plain)
    smoothed = model.losses(model.network, batch, smoothing=0.1)
    assert (smoothed - plain).abs().min() > 1e-3
    for i in range(QUESTIONS):
        alone = workload.batch("validation", [i])
        own = model.losses(model.network, alone, smoothing=0.1)[0]
        torch.testing.assert_close(own, smoothed[i], atol=1e-5, rtol=0)


def test_an_image_of_several_questions_is_encoded_once(workload: Workload) -> None:
    model = workload.model
    split = workload.rows["train"]
    asked = [i for i, row in enumerate(split) if row.image in (0, 3)]
    seen: list[int] = []
    vision = model.network.get_submodule(model.slots["vision"])
    hook = vision.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model.losses(model.network, workload.batch("train", asked))
    model.answers(model.network, workload.batch("train", asked))
    hook.remove()
    assert len(asked) > 2
    assert seen == [2, 2]


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
        model.losses(model.network, model.collate([asked_of], pixels))[0]
        for asked_of, pixels in cases.values()
    )
    assert abs(plain - blank) > 1e-4
    assert abs(plain - asked) > 1e-4


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


def test_every_role_is_of_layers_that_exist(model: Model) -> None:
    transformer = {"norm", "self_attention", "attention_output", "ffn_in", "ffn_out"}
    for name in model.slots:
        there = slot(model, model.network, name)
        assert set(there.roles) <= set(ROLES)
        lacking = sorted(transformer - set(there.roles))
        assert not lacking or set(there.roles) == {"projection"}, (
            f"slot {name!r} of {model.name} has no layers of the roles {', '.join(lacking)}: name "
            "in Model.parts the attributes, of the types of its modules, that play them"
        )
        layers = [layer for layers in there.roles.values() for layer in layers]
        assert len(layers) == len(set(layers)), "a layer has one role"
        for layer in layers:
            assert isinstance(there.module.get_submodule(layer), nn.Module)


def test_every_norm_and_linear_layer_is_found(model: Model) -> None:
    """But for heads, which are no part of a stack."""
    for name, path in model.slots.items():
        module = model.network.get_submodule(path)
        there = slot(model, model.network, name)
        norms = {n for n, m in module.named_modules() if "norm" in type(m).__name__.lower()}
        assert set(there.roles.get("norm", ())) == norms, f"slot {name!r} of {model.name}"
        linear = {n for n, m in module.named_modules() if type(m) is nn.Linear}
        others = linear - {layer for layers in there.roles.values() for layer in layers}
        heads = {n for n in others if n == "lm_head" or n.startswith("cls.")}
        assert others == heads, (
            f"linear layers of slot {name!r} of {model.name} have no role in Model.parts: "
            f"{', '.join(sorted(others - heads))}"
        )


def test_an_unknown_slot_is_refused(model: Model) -> None:
    recipe = Recipe.of({"visoin": {"method": "full"}})
    with pytest.raises(BadInput, match="unknown slot 'visoin'; did you mean 'vision'"):
        apply(recipe, model, share_weights(model.network), seed=0)
