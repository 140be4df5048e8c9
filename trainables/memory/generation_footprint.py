"""Predicts the memory of generating answers: a forward pass and a key-value cache."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from trainables import recipe
from trainables.memory import footprint
from trainables.memory.footprint import BatchShape, Footprint
from trainables.model_contract import Skeleton, slot
from trainables.recipe import Recipe
from trainables.weight_sharing import share_weights


def predict(model: Skeleton, shape: BatchShape, *, beams: int, precision: str) -> Footprint:
    """Predict the footprint of answering a batch of ``shape`` with the untuned base on one device.

    The footprint is that of a forward pass with a row for each beam, plus the key-value cache.
    Generation itself is not followed, as the length of an answer depends on its content.
    """
    rows = replace(shape, questions=shape.questions * beams)
    network = share_weights(model.network)
    nothing = Recipe.from_plain({name: {"method": "frozen"} for name in model.slots})
    applied = recipe.apply(nothing, model, network, seed=0)
    forward = footprint.predict(
        model, network, applied, training=rows, evaluation=rows, precision=precision
    )
    cached = _cache(model, rows, precision)
    return replace(
        forward,
        workspace=forward.workspace + cached,
        passes=forward.passes + cached,
        passes_alone=forward.passes_alone + cached,
    )


def _cache(model: Skeleton, rows: BatchShape, precision: str) -> int:
    """Maximum bytes of a batch's key-value cache: all tokens in each layer of the last slot, which
    generates the answers."""
    decoder = slot(model, model.network, list(model.slots)[-1])
    size = 0
    for role in ("key", "value", "qkv"):
        for path in decoder.roles.get(role, ()):
            layer = decoder.module.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            bytes_each = 2 if precision == "bf16" else layer.weight.element_size()
            size += layer.out_features * bytes_each
    return size * rows.questions * (rows.question_tokens + rows.answer_tokens)
