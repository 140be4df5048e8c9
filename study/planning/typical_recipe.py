"""An arm's recipe at typical values, with which a plan counts parameters and predicts memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.declare import Arm
from study.config import spaces

if TYPE_CHECKING:
    from trainables.model_contract import Structure
    from trainables.recipe import Recipe


def largest(arm: Arm, model: Structure) -> dict[str, Any]:
    """Parameter's name -> value with which the arm trains most, for each choice that says by texts
    or tuples where a method acts (``targets``, ``layers``). Each of these values is tried in the
    model, one choice after another, so that one that it cannot have is found before any trial.

    Raises:
        BadInput: the model has no such slot or layers, or finds nothing to train in them.
    """
    chosen: dict[str, Any] = {}
    for name, values in spaces.placing(arm).items():
        trained = {
            number: _trained(spaces.typical(arm, model.slots, {**chosen, name: value}), model)
            for number, value in enumerate(values.values)
        }
        chosen[name] = values.values[max(trained, key=lambda number: trained[number])]
    return chosen


def typical(arm: Arm, model: Structure) -> Recipe:
    """The recipe at the middle of the arm's ranges, and at its ``largest`` choices."""
    return spaces.typical(arm, model.slots, largest(arm, model))


def _trained(chosen: Recipe, model: Structure) -> int:
    """Number of values that a recipe trains in a model."""
    from trainables import recipe
    from trainables.weight_sharing import share_weights

    network = share_weights(model.network)
    return recipe.apply(chosen, model, network, seed=0).trained_parameters
