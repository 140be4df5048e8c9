"""Virtual tokens are where they should be and nowhere else: in ``prefix`` and ``ptv2``.

What depends on masks and caches is asked of ``prompt`` too; the rest of it is in ``test_prompt``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.blip.configuration_blip import BlipTextConfig
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextModel, BlipTextSelfAttention

from trainables import recipe, registry
from trainables.errors import BadInput
from trainables.methods.common import virtual_tokens
from trainables.methods.common.roles import ROLES
from trainables.model_contract import Model, Slot
from trainables.models.blip import Blip
from trainables.models.common.attention import fuse
from trainables.recipe import Recipe, Tuning
from trainables.weight_sharing import share_weights
from trainables.workload import Workload

METHODS = ["prefix", "ptv2"]
BLIP = pytest.mark.parametrize("family", ["blip"], scope="session", indirect=True)
"""For what is said of its own layers."""


def tuned(model: Model, method: str, *slots: str) -> nn.Module:
    network = share_weights(model.network)
    tuning = {"method": method, "tokens": 3, "everywhere": not slots}
    recipe.apply(
        Recipe.from_plain(dict.fromkeys(slots or model.slots, tuning)), model, network, seed=0
    )
    return network.eval()


@pytest.mark.parametrize(("method", "count"), [("ptv2", 184_320), ("prefix", 14_772_480)])
def test_counts_are_those_of_the_papers(method: str, count: int) -> None:
    """Of a text stack of BERT's size in MILE (arXiv 2403.06407), without memory."""
    with torch.device("meta"):
        stack = BlipTextModel(BlipTextConfig(), add_pooling_layer=False)
    fuse(stack)
    stack.requires_grad_(False)
    roles: dict[str, list[str]] = {role: [] for role in ROLES}
    for path, part in stack.named_modules():
        for attribute, role in Blip.parts.get(type(part), {}).items():
            roles[role].append(f"{path}.{attribute}")
    slot = Slot(name="text", module=stack, roles={r: tuple(names) for r, names in roles.items()})
    module = registry.METHODS.find(method)
    trained = module.apply(slot, module.Config())
    assert sum(stack.get_parameter(name).numel() for name in trained) == count


@pytest.mark.parametrize("method", [*METHODS, "prompt"])
def test_neither_losses_nor_answers_depend_on_the_batch(workload: Workload, method: str) -> None:
    model = workload.model
    network = tuned(model, method)
    rows = range(10)
    together = workload.batch("validation", rows)
    alone = [workload.batch("validation", [i]) for i in rows]
    torch.testing.assert_close(
        model.losses(network, together), torch.cat([model.losses(network, one) for one in alone])
    )
    assert model.answers(network, together) == [model.answers(network, one)[0] for one in alone]


@BLIP
@pytest.mark.parametrize("method", [*METHODS, "prompt"])
def test_token_by_token_is_as_all_at_once(workload: Workload, method: str) -> None:
    """What greedy decoding with a cache writes is what teacher forcing finds most likely."""
    model = workload.model
    network = tuned(model, method)
    batch = workload.batch("validation", range(4))
    decoder: Any = network.get_submodule(model.slots["decoder"])
    seen = {
        "encoder_hidden_states": torch.randn(4, 5, 32).to(workload.device),
        "encoder_attention_mask": torch.ones(4, 5, dtype=torch.long, device=workload.device),
    }
    with torch.no_grad():
        whole_BAV = decoder(input_ids=batch.answer_BA, use_cache=False, **seen).logits
        past, steps = None, []
        for token_B1 in batch.answer_BA.split(1, dim=1):
            said = decoder(input_ids=token_B1, past_key_values=past, use_cache=True, **seen)
            past = said.past_key_values
            steps.append(said.logits)
    assert past.get_seq_length() == batch.answer_BA.shape[1], "virtual tokens take no position"
    torch.testing.assert_close(torch.cat(steps, dim=1), whole_BAV)


@BLIP
@pytest.mark.parametrize("method", ["ptv2", "prompt"])
def test_no_answer_is_seen_before_it_is_said(workload: Workload, method: str) -> None:
    """The mask stays causal: a later token changes nothing before it."""
    model = workload.model
    decoder: Any = tuned(model, method).get_submodule(model.slots["decoder"])
    tokens_BA = torch.tensor([[5, 7, 8, 9], [5, 7, 8, 10]], device=workload.device)
    with torch.no_grad():
        logits_BAV = decoder(
            input_ids=tokens_BA,
            encoder_hidden_states=torch.ones(2, 1, 32, device=workload.device),
            use_cache=False,
        ).logits
    torch.testing.assert_close(logits_BAV[0, :3], logits_BAV[1, :3])
    assert not torch.allclose(logits_BAV[0, 3], logits_BAV[1, 3], atol=0.1)


@BLIP
@pytest.mark.parametrize(
    ("slot", "kind"), [("vision", BlipAttention), ("fusion", BlipTextSelfAttention)]
)
def test_attention_is_what_the_formula_says(
    workload: Workload, slot: str, kind: type[nn.Module]
) -> None:
    """softmax(q [K_virtual; K]^T / sqrt(d)) [V_virtual; V], written out for the first layer."""
    model = workload.model
    network = tuned(model, "ptv2", slot)
    stack = network.get_submodule(model.slots[slot])
    attention = next(module for module in stack.modules() if isinstance(module, kind))
    seen: dict[str, Tensor] = {}

    def note(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        hidden_BTD = (args[0] if args else kwargs["hidden_states"])[:1]
        seen.update(input=hidden_BTD, output=output[0][:1])

    attention.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(real=args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
        prepend=True,
    )
    attention.register_forward_hook(note, with_kwargs=True)
    batch = workload.batch("validation", [0])
    with torch.no_grad():
        model.losses(network, batch)
        real_TD = seen["real"][0]
        if slot == "vision":
            q, k, v = _linear(attention, "qkv", real_TD).chunk(3, dim=-1)
        else:
            q, k, v = (_linear(attention, name, real_TD) for name in ("query", "key", "value"))
        added = stack.get_submodule("virtual_tokens")
        assert isinstance(added, virtual_tokens.VirtualTokens)
        keys_NW, values_NW = added.for_layer(0)
        k, v = torch.cat((keys_NW, k)), torch.cat((values_NW, v))
        q, k, v = (x.view(len(x), 2, 16).transpose(0, 1) for x in (q, k, v))
        expected = nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        if slot == "vision":
            expected = _linear(attention, "projection", expected)
    torch.testing.assert_close(seen["output"][0], expected)


def _linear(attention: nn.Module, name: str, rows: Tensor) -> Tensor:
    layer = attention.get_submodule(name)
    return nn.functional.linear(rows, layer.get_parameter("weight"), layer.get_parameter("bias"))


@BLIP
def test_cross_attention_sees_none(workload: Workload) -> None:
    model = workload.model
    decoder = tuned(model, "ptv2").get_submodule(model.slots["decoder"])
    added = decoder.get_submodule("virtual_tokens")
    layers = [m for m in decoder.modules() if isinstance(m, BlipTextSelfAttention)]
    assert isinstance(added, virtual_tokens.VirtualTokens)
    assert added.layers == len(layers) / 2


@pytest.mark.parametrize("method", METHODS)
def test_there_is_at_least_one(method: str) -> None:
    with pytest.raises(BadInput, match=f"{method} tokens must be at least 1 but got 0"):
        Tuning.parse(method, {"tokens": 0})
    assert dataclasses.asdict(Tuning.parse(method, {}).config) == {"tokens": 10}


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_rope_and_shared_keys_and_a_mask_left_to_the_kernel(kernel: str) -> None:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        attn_implementation=kernel,
    )
    stack: Any = LlamaModel(config).eval().requires_grad_(False)
    layers = [f"layers.{i}.self_attn" for i in range(2)]
    roles = {"self_attention": tuple(layers), "key": tuple(f"{name}.k_proj" for name in layers)}
    tokens_BT = torch.randint(20, (2, 6))
    plain_BTD = stack(tokens_BT).last_hidden_state
    trained = virtual_tokens.add(
        Slot(name="text", module=stack, roles=roles), tokens=3, projected=False
    )
    assert [stack.get_parameter(name).numel() for name in trained] == [3 * 2 * 2 * 16]
    with torch.no_grad():
        whole_BTD = stack(tokens_BT, use_cache=False).last_hidden_state
        past, steps = None, []
        for piece_BT in tokens_BT.split([3, 2, 1], dim=1):
            said = stack(piece_BT, past_key_values=past, use_cache=True)
            past = said.past_key_values
            steps.append(said.last_hidden_state)
    assert not torch.allclose(whole_BTD, plain_BTD)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole_BTD)


def test_keys_and_values_of_an_image_encoder_that_does_not_fuse_them() -> None:
    from transformers import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPAttention

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, num_attention_heads=2, attn_implementation="sdpa", hidden_act="relu"
    )

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = CLIPAttention(config)

        def forward(self, hidden_BTD: Tensor) -> Tensor:
            mixed_BTD: Tensor = self.attention(hidden_BTD)[0]
            return mixed_BTD

    stack: Any = Stack().requires_grad_(False)
    roles = {x: (f"attention.{x[0]}_proj",) for x in ("key", "value")}
    roles["self_attention"] = ("attention",)
    virtual_tokens.add(Slot(name="vision", module=stack, roles=roles), tokens=3, projected=False)
    hidden_BTD = torch.randn(2, 5, 32)
    with torch.no_grad():
        found_BTD = stack(hidden_BTD)
        attention, (keys_NW, values_NW) = stack.attention, stack.virtual_tokens.for_layer(0)
        for hidden_TD, found_TD in zip(hidden_BTD, found_BTD, strict=True):
            q, k, v = (_linear(attention, f"{x}_proj", hidden_TD) for x in "qkv")
            k, v = torch.cat((keys_NW, k)), torch.cat((values_NW, v))
            q, k, v = (x.view(len(x), 2, 16).transpose(0, 1) for x in (q, k, v))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
            torch.testing.assert_close(found_TD, _linear(attention, "out_proj", mixed))
