"""Maps the weights of pretrained towers to those of a BLIP that computes the same function.

Operations of a tower that BLIP lacks are folded into a neighbouring weight: DINOv2's layer scale
into the projections before it, the normalisation of its images into the patch embedding, BERT's
token type into the position embeddings. Cross-attention, which only BLIP has, starts so that it
changes nothing until it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel, Dinov2Model

from trainables.models.common.clip import DEVIATION, MEAN


def vision_config(tower: Dinov2Model, image_size: int) -> dict[str, Any]:
    """The ``vision_config`` of a BLIP that can hold the weights of ``tower``."""
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
    """Weights of a ``BlipVisionModel`` that gives the features of ``tower``.

    Args:
        tower: a DINOv2 whose layers have the usual MLP.
        image_size: pixels a side; positions are interpolated to it, as DINOv2 does in each pass.
        mean: mean of the images that the tower was trained on, for each channel; BLIP's images are
            normalised by CLIP's mean.
        deviation: standard deviation of the images that the tower was trained on.
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
    # The patch embedding gets (x - MEAN) / DEVIATION, but was trained on (x - mean) / deviation.
    patch_DCPP, bias_D = (
        weight.double() for weight in _weight_and_bias(embeddings.patch_embeddings.projection)
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
        *qkv, out = _attention(layer.attention)
        parts = {
            "layer_norm1": _weight_and_bias(layer.norm1),
            "self_attn.qkv": tuple(map(torch.cat, zip(*map(_weight_and_bias, qkv), strict=True))),
            "self_attn.projection": _scaled(out, layer.layer_scale1.lambda1),
            "layer_norm2": _weight_and_bias(layer.norm2),
            "mlp.fc1": _weight_and_bias(layer.mlp.fc1),
            "mlp.fc2": _scaled(layer.mlp.fc2, layer.layer_scale2.lambda1),
        }
        for name, (weight, bias) in parts.items():
            weights[f"encoder.layers.{number}.{name}.weight"] = weight
            weights[f"encoder.layers.{number}.{name}.bias"] = bias
    weights["post_layernorm.weight"], weights["post_layernorm.bias"] = _weight_and_bias(
        tower.layernorm
    )
    return {name: weight.float() for name, weight in weights.items()}


def _attention(module: Any) -> tuple[nn.Linear, ...]:
    """Query, key, value and output of an attention of DINOv2."""
    if hasattr(module, "attention"):  # before transformers 5.18, in two modules
        heads = module.attention
        return heads.query, heads.key, heads.value, module.output.dense
    return module.q_proj, module.k_proj, module.v_proj, module.o_proj


def _weight_and_bias(module: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer; the bias is zero where a linear layer has none."""
    bias = module.bias
    return module.weight, torch.zeros(len(module.weight)) if bias is None else bias


def _scaled(linear: nn.Linear, scale_D: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer with a scale on each of its outputs."""
    weight, bias = _weight_and_bias(linear)
    return weight * scale_D[:, None], bias * scale_D


def text_config(tower: BertModel) -> dict[str, Any]:
    """Settings that the ``text_config`` of a BLIP takes over from ``tower``."""
    config: Any = tower.config
    names = "hidden_size intermediate_size num_attention_heads hidden_act layer_norm_eps".split()
    return {name: getattr(config, name) for name in names}


@torch.no_grad()
def text_weights(tower: BertModel, kept: Sequence[int], positions: int) -> dict[str, Tensor]:
    """Weights of a ``BlipTextModel`` that gives the features of ``tower``.

    Args:
        tower: a BERT with absolute positions.
        kept: ids, in the tower's vocabulary, of the word pieces to keep, in their new order.
        positions: number of tokens that a text can have.

    Returns:
        All weights except query, key and value of the cross-attention, which may be anything. The
        output of cross-attention is zero, and a LayerNorm of its own follows it, as after every sum
        in BERT. Two LayerNorms in a row equal one if the first only normalises, so the second gets
        the gain and bias of the tower's LayerNorm.
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


def add_cross_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the weights of cross-attention, for a decoder that attends to an encoder made of the same
    tower.

    Cross-attention starts as self-attention, since both attend to features of the same kind.
    """
    copied = dict(weights)
    for name, weight in weights.items():
        if ".crossattention.output.LayerNorm." in name:  # holds the tower's gain and bias
            copied[name.replace(".crossattention.", ".attention.")] = weight
        elif ".attention.self." in name or ".attention.output.dense." in name:
            copied[name.replace(".attention.", ".crossattention.")] = weight
    return copied


def _named(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Weights of a module, with ``name`` in front of their names."""
    return {f"{name}.{part}": weight for part, weight in module.state_dict().items()}
