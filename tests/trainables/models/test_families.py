"""What every model family promises. A family joins by its entry in ``SMALL`` (see ``conftest``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from trainables.errors import BadInput
from trainables.model_contract import ROLES, Model, Row, slot
from trainables.recipe import Recipe, apply
from trainables.weight_sharing import share_weights
from trainables.workload import Workload

QUESTIONS = 10  # of the made-up validation split


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
        assert (parameter.grad is not None and bool(parameter.grad.any())) == in_slot, name


def test_every_role_is_of_layers_that_exist(model: Model) -> None:
    transformer = {"norm", "self_attention", "attention_output", "ffn_in", "ffn_out"}
    for name in model.slots:
        there = slot(model, model.network, name)
        assert set(there.roles) <= set(ROLES)
        assert transformer <= set(there.roles) or set(there.roles) == {"projection"}
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
        assert set(there.roles.get("norm", ())) == norms
        linear = {n for n, m in module.named_modules() if type(m) is nn.Linear}
        others = linear - {layer for layers in there.roles.values() for layer in layers}
        assert all(n == "lm_head" or n.startswith("cls.") for n in others), others


def test_an_unknown_slot_is_refused(model: Model) -> None:
    recipe = Recipe.of({"visoin": {"method": "full"}})
    with pytest.raises(BadInput, match="unknown slot 'visoin'; did you mean 'vision'"):
        apply(recipe, model, share_weights(model.network), seed=0)
