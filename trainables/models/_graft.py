"""Pretrained towers as parts of a BLIP: other names for the same weights, so the same function.

What a tower does that BLIP's layers have no place for is folded into a weight beside it: DINOv2's
layer scale into the projections before it, the normalisation of its images into the patch
embedding, BERT's token type into the position embeddings. What BLIP has besides, cross-attention,
is put in so that it changes nothing until it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel, Dinov2Model

from trainables.models._clip import DEVIATION, MEAN

# --- 1. The image encoder: DINOv2 (Oquab et al. 2023, arXiv 2304.07193) ---------------------------


def vision_config(tower: Dinov2Model, image_size: int) -> dict[str, Any]:
    """The ``vision_config`` of a BLIP that can hold the tower."""
    config: Any = tower.config
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": int(config.hidden_size * config.mlp_ratio),
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "image_size": image_size,
        "patch_size": config.patch_size,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
    }


@torch.no_grad()
def vision_weights(
    tower: Dinov2Model, image_size: int, mean: Sequence[float], deviation: Sequence[float]
) -> dict[str, Tensor]:
    """The weights of a ``BlipVisionModel`` that gives the tower's features.

    Args:
        tower: a DINOv2 whose layers have the usual MLP.
        image_size: pixels a side; positions are interpolated to it as DINOv2 does in each pass.
        mean: of the images that the tower was trained on, for each channel; BLIP's have CLIP's.
        deviation: of those images.
    """
    embeddings: Any = tower.embeddings
    config: Any = tower.config
    tokens_1TD = torch.empty(1, 1 + (image_size // config.patch_size) ** 2, config.hidden_size)
    weights = {
        "embeddings.class_embedding": embeddings.cls_token,
        "embeddings.position_embedding": embeddings.interpolate_pos_encoding(
            tokens_1TD, image_size, image_size
        ),
    }
    # It is given (x - MEAN) / DEVIATION and was trained on (x - mean) / deviation.
    patch_DCPP, bias_D = (
        weight.double() for weight in _both(embeddings.patch_embeddings.projection)
    )
    mean_C, deviation_C, given_mean_C, given_deviation_C = torch.tensor(
        [mean, deviation, MEAN, DEVIATION], dtype=torch.double
    )
    stretch_C = given_deviation_C / deviation_C
    shift_C = (given_mean_C - mean_C) / deviation_C
    weights["embeddings.patch_embedding.weight"] = patch_DCPP * stretch_C[:, None, None]
    weights["embeddings.patch_embedding.bias"] = bias_D + patch_DCPP.sum((2, 3)) @ shift_C
    layers: Any = tower.encoder.layer
    for number, layer in enumerate(layers):
        attention = layer.attention
        qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
        parts = {
            "layer_norm1": _both(layer.norm1),
            "self_attn.qkv": tuple(map(torch.cat, zip(*map(_both, qkv), strict=True))),
            "self_attn.projection": _scaled(attention.o_proj, layer.layer_scale1.lambda1),
            "layer_norm2": _both(layer.norm2),
            "mlp.fc1": _both(layer.mlp.fc1),
            "mlp.fc2": _scaled(layer.mlp.fc2, layer.layer_scale2.lambda1),
        }
        for name, (weight, bias) in parts.items():
            weights[f"encoder.layers.{number}.{name}.weight"] = weight
            weights[f"encoder.layers.{number}.{name}.bias"] = bias
    weights["post_layernorm.weight"], weights["post_layernorm.bias"] = _both(tower.layernorm)
    return {name: weight.float() for name, weight in weights.items()}


def _both(module: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias; zeros where a Linear has none."""
    bias = module.bias
    return module.weight, torch.zeros(len(module.weight)) if bias is None else bias


def _scaled(linear: nn.Linear, scale_D: Tensor) -> tuple[Tensor, Tensor]:
    """A Linear and a scale of each of its outputs as one Linear."""
    weight, bias = _both(linear)
    return weight * scale_D[:, None], bias * scale_D


# --- 2. The text stacks: BERT (Devlin et al. 2018, arXiv 1810.04805) ------------------------------


def text_config(tower: BertModel) -> dict[str, Any]:
    """What the ``text_config`` of a BLIP that can hold the tower takes over from it."""
    config: Any = tower.config
    names = "hidden_size intermediate_size num_attention_heads hidden_act layer_norm_eps".split()
    return {name: getattr(config, name) for name in names}


@torch.no_grad()
def text_weights(tower: BertModel, kept: Sequence[int], positions: int) -> dict[str, Tensor]:
    """The weights of a ``BlipTextModel`` that gives the tower's features.

    Args:
        tower: a BERT with absolute positions.
        kept: the words (ids in the tower's vocabulary) that there are, in their new order.
        positions: how many tokens a text can have.

    Returns:
        All weights but query, key and value of the cross-attention, which may be anything. Its
        output is zero, and it is followed by a LayerNorm of its own, as every sum in BERT. Two in
        a row are one if the first only normalises: so it is the second that gets the gain and bias
        of the tower's LayerNorm.
    """
    embeddings: Any = tower.embeddings
    weights = {
        "embeddings.word_embeddings.weight": embeddings.word_embeddings.weight[list(kept)],
        "embeddings.position_embeddings.weight": embeddings.position_embeddings.weight[:positions]
        + embeddings.token_type_embeddings.weight[0],
    }
    weights |= _named("embeddings.LayerNorm", embeddings.LayerNorm)
    layers: Any = tower.encoder.layer
    for number, layer in enumerate(layers):
        norm = layer.attention.output.LayerNorm
        cross = f"encoder.layer.{number}.crossattention.output"
        weights |= {
            f"encoder.layer.{number}.{name}": weight for name, weight in layer.state_dict().items()
        }
        weights |= {
            f"encoder.layer.{number}.attention.output.LayerNorm.weight": torch.ones_like(
                norm.weight
            ),
            f"encoder.layer.{number}.attention.output.LayerNorm.bias": torch.zeros_like(norm.bias),
            f"{cross}.dense.weight": torch.zeros_like(layer.attention.output.dense.weight),
            f"{cross}.dense.bias": torch.zeros_like(layer.attention.output.dense.bias),
        }
        weights |= _named(f"{cross}.LayerNorm", norm)
    return weights


def attending(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for a stack that attends to the features of another that began as the same tower:
    its cross-attention begins as its self-attention, since what they attend to is of one kind."""
    copied = dict(weights)
    for name, weight in weights.items():
        if ".crossattention.output.LayerNorm." in name:  # has what the tower's LayerNorm has
            copied[name.replace(".crossattention.", ".attention.")] = weight
        elif ".attention.self." in name or ".attention.output.dense." in name:
            copied[name.replace(".attention.", ".crossattention.")] = weight
    return copied


def _named(name: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{part}": weight for part, weight in module.state_dict().items()}
