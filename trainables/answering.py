"""How much memory answering takes: nothing is kept for a backward pass, but what was read is."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from trainables import footprint, recipe
from trainables.footprint import BatchShape, Footprint
from trainables.fork import fork
from trainables.models.contract import Skeleton, slot
from trainables.recipe import Recipe


def predict(model: Skeleton, shape: BatchShape, *, beams: int, precision: str) -> Footprint:
    """Of a batch of ``shape`` that the base as it is answers, on one device.

    It is a pass that keeps nothing, of a row for each beam, and beside it what writing reads again
    at each token. The writing itself is not followed: when an answer ends depends on what it says.
    """
    rows = replace(shape, questions=shape.questions * beams)
    network = fork(model.network)
    nothing = Recipe.of({name: {"method": "frozen"} for name in model.slots})
    applied = recipe.apply(nothing, model, network, seed=0)
    found = footprint.predict(
        model, network, applied, training=rows, evaluation=rows, precision=precision
    )
    cached = _cache(model, rows, precision)
    return replace(
        found,
        workspace=found.workspace + cached,
        passes=found.passes + cached,
        passes_alone=found.passes_alone + cached,
    )


def _cache(model: Skeleton, rows: BatchShape, precision: str) -> int:
    """Bytes of the keys and values that the last slot, which writes, keeps of a batch: at most, of
    all tokens in each of its layers."""
    writes = slot(model, model.network, list(model.slots)[-1])
    size = 0
    for role in ("key", "value", "qkv"):
        for path in writes.roles.get(role, ()):
            layer = writes.module.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            bytes_each = 2 if precision == "bf16" else layer.weight.element_size()
            size += layer.out_features * bytes_each
    return size * rows.questions * (rows.question_tokens + rows.answer_tokens)
