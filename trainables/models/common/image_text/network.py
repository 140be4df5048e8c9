"""Networks of ``AutoModelForImageTextToText``, arranged so that each slot is a module of its own.

transformers puts the layer that maps image features to the decoder's width (the connector) beside
the image encoder or inside of it, and the head that writes words beside the decoder. Here every
slot is one submodule and no slot holds another: a connector that lies inside the encoder is moved
to the network itself, and the head into the decoder. The modules stay the same objects and are
called where transformers calls them, so the computation does not change. ``restore`` undoes it.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from trainables.errors import BadInput

Roles = Mapping[type[nn.Module], Mapping[str, str]]

BESIDE = ("multi_modal_projector", "connector", "aligner", "projector", "vision_projection")
"""Names of connectors beside the image encoder."""
INSIDE = ("merger", "deepstack_merger_list")
"""Names of connectors inside the image encoder; a model may have both."""
NEWLINE = "image_newline"
"""Name of a bare parameter beside the connector: the vector that ends a line of image tokens."""
ATTENTION = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "qkv": "qkv",
    # A Gated DeltaNet's projections, which some checkpoints have fused in one or two.
    "in_proj_qkv": "qkv",
    "in_proj_z": "qkv",
    "in_proj_b": "qkv",
    "in_proj_a": "qkv",
    "o_proj": "attention_output",
    "out_proj": "attention_output",
    "proj": "attention_output",
    "projection_layer": "attention_output",
}
"""Attribute of an attention or linear-attention type -> role of its linear layer."""
FFN = {
    "gate_proj": "ffn_in",
    "up_proj": "ffn_in",
    "gate_up_proj": "ffn_in",
    "fc1": "ffn_in",
    "linear_fc1": "ffn_in",
    "down_proj": "ffn_out",
    "fc2": "ffn_out",
    "linear_fc2": "ffn_out",
}
"""Attribute of a feed-forward type -> role of its linear layer."""


def arrange(network: Any, called: str) -> dict[str, str]:
    """Arrange a network of transformers and return the path of each slot's module.

    Raises:
        BadInput: the parts of the network can't be told apart.
    """
    model = network.base_model
    vision, decoder = network.get_encoder(modality="image"), network.get_decoder()
    if model is network or vision in (network, model) or decoder in (network, model):
        raise BadInput(f"{called}: its image encoder and decoder are no two parts of the network")
    beside = [name for name in BESIDE if isinstance(getattr(model, name, None), nn.Module)]
    inside = [name for name in INSIDE if isinstance(vision._modules.get(name), nn.Module)]
    if len(beside) + bool(inside) != 1:
        raise BadInput(
            f"{called}: no connector between image encoder and decoder is known, by one of the "
            f"names {', '.join((*BESIDE, *INSIDE))}"
        )
    if "vision_feature_layer" in inspect.signature(model.get_image_features).parameters:
        from transformers.utils.output_capturing import maybe_install_capturing_hooks

        # Before the network is copied: where hooks of a copy differ, a method is taken to have
        # added them.
        maybe_install_capturing_hooks(vision)
    _set_unread_aside(network, vision)
    if inside:
        parts = {name: vision._modules.pop(name) for name in inside}
        # An attribute that is no submodule: the encoder still calls it, but does not hold it.
        vision.__dict__ |= {
            n: [*m] if isinstance(m, nn.ModuleList) else m for n, m in parts.items()
        }
        connector = parts["merger"] if len(parts) == 1 else nn.ModuleDict(parts)
        network.add_module("moved_connector", connector)
    else:
        connector = getattr(model, beside[0])
    if isinstance(model._parameters.get(NEWLINE), nn.Parameter):
        connector.register_parameter(NEWLINE, model._parameters.pop(NEWLINE))
        kind: Any = type(model)
        model.__class__ = _with_newline(kind)
    decoder.add_module("lm_head", network._modules.pop("lm_head"))
    network.__dict__["lm_head"] = _Head(decoder)
    network.eval()
    paths = {id(module): path for path, module in network.named_modules()}
    found = {"vision": vision, "connector": connector, "decoder": decoder}
    return {name: paths[id(module)] for name, module in found.items()}


def restore(network: Any) -> None:
    """Undo ``arrange``."""
    vision, decoder = network.get_encoder(modality="image"), network.get_decoder()
    del network.__dict__["lm_head"]
    network.add_module("lm_head", decoder._modules.pop("lm_head"))
    if (moved := network._modules.pop("moved_connector", None)) is not None:
        parts = dict(moved.items()) if isinstance(moved, nn.ModuleDict) else {"merger": moved}
        for name, module in parts.items():
            del vision.__dict__[name]
            vision.add_module(name, module)
    model = network.base_model
    if hasattr(type(model), "without_newline"):
        model.__class__ = type(model).without_newline
        connector = next(getattr(model, name) for name in BESIDE if hasattr(model, name))
        model.register_parameter(NEWLINE, connector._parameters.pop(NEWLINE))
    unread = network._modules.pop("unread", None)
    for name, module in (unread or {}).items():
        vision.set_submodule(name.replace("/", "."), module)


@cache
def _with_newline(kind: Any) -> Any:
    """A subclass of a model's class that looks up the vector that ends a line of image tokens in
    the connector, of which it is a part as a bare parameter."""

    def newline(model: Any) -> Tensor:
        connector = next(model._modules[name] for name in BESIDE if name in model._modules)
        found: Tensor = connector.image_newline
        return found

    return type(kind.__name__, (kind,), {NEWLINE: property(newline), "without_newline": kind})


class _Head:
    """The head that writes words, looked up in the decoder whenever the network calls it.

    Its input is some tokens of each question. It is made contiguous: otherwise PyTorch on a CPU
    would compute a batch of products, each with a copy of the whole vocabulary's weights.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self.decoder = decoder

    def __call__(self, x_BTD: Tensor) -> Tensor:
        head: Any = self.decoder.get_submodule("lm_head")
        logits_BTV: Tensor = head(x_BTD.contiguous())
        return logits_BTV

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "decoder":
            raise AttributeError(name)
        return getattr(self.decoder.get_submodule("lm_head"), name)


class Unread(nn.Module):
    """Stands for a layer whose output the model does not read; returns its input."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """The input, unchanged."""
        return hidden_states


def _set_unread_aside(network: Any, vision: nn.Module) -> None:
    """Move layers of the image encoder that come after the layer that the model reads to
    ``network.unread``, which is in no slot: they would be computed for nothing."""
    unread: dict[str, nn.Module] = {}
    head = vision._modules.get("head")
    if getattr(vision, "use_head", False) and head is not None:
        unread["head"] = head
    if (read := layer_read(network)) is not None:
        depth = network.config.vision_config.num_hidden_layers
        stacks = [
            (path, stack)
            for path, stack in vision.named_modules()
            if isinstance(stack, nn.ModuleList) and len(stack) == depth
        ]
        for path, stack in stacks:
            unread |= {f"{path}.{i}": stack[i] for i in range(read, depth)}
        last = vision._modules.get("post_layernorm")
        if last is not None:
            unread["post_layernorm"] = last
    if unread:
        for path in unread:
            vision.set_submodule(path, Unread())
        network.unread = nn.ModuleDict({path.replace(".", "/"): m for path, m in unread.items()})


def layer_read(network: Any) -> int | None:
    """Number of layers of the image encoder up to the one whose output is read, where the model
    reads that and not the encoder's last output.

    Raises:
        BadInput: it reads several layers, or one that there is not.
    """
    given = inspect.signature(network.base_model.get_image_features).parameters
    layer = getattr(network.config, "vision_feature_layer", None)
    if "vision_feature_layer" not in given or layer is None:
        return None
    if not isinstance(layer, int):
        raise BadInput(f"the model reads several layers of its image encoder, {layer}; known: one")
    depth = network.config.vision_config.num_hidden_layers
    if not -depth - 1 <= layer <= depth:
        raise BadInput(
            f"vision_feature_layer must be from {-depth - 1} to {depth}, the layers of the image "
            f"encoder, not {layer}"
        )
    last_output = "image_sizes" not in given and layer == -1  # as in InternVL
    return None if last_output else range(depth + 1)[layer]


def shares_rows(vision: nn.Module) -> bool:
    """Whether an image encoder gets the patches of all images in one row, each image attending to
    its own by lengths or a mask."""
    given = inspect.signature(type(vision).forward).parameters
    return "grid_thw" in given or "image_sizes" in given


def roles(network: nn.Module, slots: Mapping[str, str]) -> Roles:
    """Roles of the layers of every module type in the slots, found by the attributes of the type.

    An attention has q_proj, k_proj and v_proj, or qkv; a Gated DeltaNet has in_proj_qkv. A
    feed-forward type has one of the sets of attributes in ``FFN``. A connector's linear layers are
    all ``projection``. A type with an attention as attribute is a block. The attention of an image
    encoder that gets all images in one row is no ``self_attention``, since methods put tokens
    before those of each image.
    """
    found: dict[type[nn.Module], dict[str, str]] = defaultdict(dict)
    joined = shares_rows(network.get_submodule(slots["vision"]))
    for name in ("vision", "decoder"):
        part = network.get_submodule(slots[name])
        kinds = {type(m): m for m in part.modules() if not isinstance(m, nn.ModuleList)}
        attentions = {kind for kind, m in kinds.items() if _is_attention(m) or _is_delta_net(m)}
        for kind, module in kinds.items():
            if kind in attentions:
                found[kind] |= {n: ATTENTION[n] for n in _linear(module) if n in ATTENTION}
            else:
                found[kind] |= {n: FFN[n] for n in _linear(module) if n in FFN}
            found[kind] |= {
                n: "patch"
                for n, m in module.named_children()
                if isinstance(m, nn.Conv2d | nn.Conv3d) and m.stride == m.kernel_size
            }
        for module in part.modules():
            for child, attention in module.named_children():
                if type(attention) not in attentions:
                    continue
                alone = (name == "vision" and joined) or _is_delta_net(attention)
                found[type(module)] |= {"": "block"} if alone else {child: "self_attention"}
    for module in network.get_submodule(slots["connector"]).modules():
        layers = dict.fromkeys(_linear(module), "projection")
        if layers and type(module) is nn.Sequential:
            module.__class__ = Projections
        found[type(module)] |= layers
    return {kind: of for kind, of in found.items() if of}


class Projections(nn.Sequential):
    """Layers of a connector in a row; a type of its own, by which their role is told."""


def _linear(module: nn.Module) -> Iterator[str]:
    return (name for name, child in module.named_children() if isinstance(child, nn.Linear))


def _is_attention(module: nn.Module) -> bool:
    names = {*_linear(module)}
    return names >= {"q_proj", "k_proj", "v_proj"} or "qkv" in names


def _is_delta_net(module: nn.Module) -> bool:
    return {*_linear(module)} >= {"in_proj_qkv", "out_proj"}
