"""A base in four bits: which layers are, which methods it can have, and that its digest says so."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from tests.trainables.conftest import SMALL
from tests.trainables.quantised import in_four_bits, needs_bitsandbytes
from trainables import recipe, registry
from trainables.errors import BadInput
from trainables.methods.common.roles import GROUPS
from trainables.model_contract import Model, slot
from trainables.model_lookup import skeleton_of
from trainables.models.common import quantisation
from trainables.models.common.quantisation import BaseBits
from trainables.recipe import Recipe
from trainables.shared_layers.quantised_linear import QuantisedLinear, count_values
from trainables.weight_sharing import share_weights
from trainables.workload import WorkloadConfig

needs_bitsandbytes()


def quantised(model: Model) -> set[str]:
    """Paths of the layers in four bits."""
    return {n for n, m in model.network.named_modules() if isinstance(m, QuantisedLinear)}


def test_layers_that_methods_wrap_are_quantised_and_no_head_is(family: str) -> None:
    before, after = SMALL[family](), in_four_bits(family).model
    roles = {name: slot(before, before.network, name).roles for name in before.slots}
    assert {name: slot(after, after.network, name).roles for name in after.slots} == roles
    assert quantised(after) == {
        f"{before.slots[name]}.{layer}"
        for name in before.slots
        if not (family == "blip_2" and name == "qformer")  # transformers keeps it in fp32
        for role in GROUPS["all"]
        for layer in roles[name].get(role, ())
    }
    bits = quantisation.slot_bits(after)
    assert [f.slot for f in bits if f.kept] == ["qformer"] * (family == "blip_2")
    left = [name for found in bits if not found.kept for name in found.left]
    heads = ["cls.predictions.transform.dense", "cls.predictions.decoder"]
    assert left == (heads if family == "blip" else ["lm_head"])
    assert count_values(after.network) == count_values(before.network)


def test_a_slot_that_is_trained_stays_whole_and_the_digest_says_so() -> None:
    models = [in_four_bits("llava", whole).model for whole in ((), ("connector",), ("vision",))]
    assert not any(path.startswith("multi_modal_projector") for path in quantised(models[1]))
    assert len({model.digest for model in models} | {SMALL["llava"]().digest}) == 4


@pytest.mark.parametrize("family", ["blip", "llava"])
@pytest.mark.parametrize("method", [n for n in registry.METHODS.names() if n != "frozen"])
def test_a_method_trains_beside_four_bits_or_is_refused(family: str, method: str) -> None:
    workload = in_four_bits(family)
    model, network = workload.model, share_weights(workload.model.network)
    tuning = {"method": method, "everywhere": True}
    chosen = Recipe.from_plain(dict.fromkeys(model.slots, tuning))
    if getattr(registry.METHODS.find(method), "TRAINS_WEIGHTS", False):
        with pytest.raises(BadInput, match=f"{method} trains weight matrices, and slot 'vision'"):
            recipe.apply(chosen, model, network, seed=0)
        return
    before = [tensor.clone() for tensor in (*network.parameters(), *network.buffers())]
    applied = recipe.apply(chosen, model, network, seed=0)
    assert applied.total_parameters >= count_values(model.network)
    loss = model.losses(network, workload.batch("train", [0, 1, 2])).mean()
    found = torch.autograd.grad(loss, [*applied.parameters.values()], allow_unused=True)
    assert any(grad is not None and grad.any() for grad in found)
    after = (*model.network.parameters(), *model.network.buffers())
    assert all(map(torch.equal, before, after)), "a trial never writes to the base"


def test_a_skeleton_is_quantised_as_the_model_is() -> None:
    bits = BaseBits(whole=("fusion",))
    model, _ = WorkloadConfig(base_bits=bits).load_model()
    skeleton = skeleton_of("tiny", base_bits=bits)
    assert quantisation.slot_bits(skeleton) == quantisation.slot_bits(model)
    assert count_values(skeleton.network) == count_values(model.network)
    assert model.digest != WorkloadConfig().load_model()[0].digest


def test_what_cannot_be_quantised_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"a question's loss would depend on its batch; give 4$"):
        BaseBits(bits=8).check()
    with pytest.raises(BadInput, match=r"--base-bits must be 4, got 3$"):
        BaseBits(bits=3).check()
    with pytest.raises(BadInput, match=r"finds nothing to quantise in small: .*vision, connector"):
        in_four_bits("llava", ("vision", "connector", "decoder"))
    BaseBits().check()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="needs the package bitsandbytes, which is not installed"):
        BaseBits().check()
