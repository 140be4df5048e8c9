"""Recipes that place a method in the slots that have layers for it."""

from __future__ import annotations

import contextlib
from typing import Any

from trainables import recipe
from trainables.errors import NoMatchingLayer
from trainables.model_contract import Model
from trainables.recipe import Recipe
from trainables.weight_sharing import share_weights

_FOUND: dict[tuple[int, str], tuple[Model, dict[str, Recipe]]] = {}
"""Number (``id``) of a model, method and its settings -> the model and what fits it."""


def fitting(model: Model, method: str, **settings: Any) -> dict[str, Recipe]:
    """Recipes with the method in one slot each, by slot, for all slots that have its layers."""
    key = (id(model), repr((method, settings)))
    if key not in _FOUND:
        _FOUND[key] = model, _fitting(model, method, settings)
    return dict(_FOUND[key][1])


def _fitting(model: Model, method: str, settings: dict[str, Any]) -> dict[str, Recipe]:
    found = {}
    for name in model.slots:
        alone = Recipe.from_plain({name: {"method": method, **settings}})
        with contextlib.suppress(NoMatchingLayer):
            recipe.apply(alone, model, share_weights(model.network), seed=0)
            found[name] = alone
    return found


def everywhere(model: Model, method: str, **settings: Any) -> Recipe:
    """Recipe with the method in all slots that have its layers."""
    tuning = {"method": method, "everywhere": True, **settings}
    return Recipe.from_plain(dict.fromkeys(model.slots, tuning))
