"""The search trial at a point of an arm: what a study draws, and what ``study.train`` trains."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from search_spaces.declare import Arm, Budget, Range
from study.config import spaces
from study.config.budget import levels, stops
from study.trials.spec import Kind, TrialSpec
from trainables.engine.training_settings import TrainingSettings
from trainables.recipe import Recipe


def trial_of_point(
    name: str,
    arm: Arm,
    value_of: spaces.Draw,
    *,
    budget: Budget,
    slots: Collection[str],
    seed: int,
    base: str,
) -> TrialSpec:
    """The trial at the point of an arm whose values ``value_of`` gives.

    Args:
        name: name of the arm.
        arm: the arm.
        value_of: gives the value of each range.
        budget: budget of the study, whose rungs the trial reports.
        slots: slots of the model.
        seed: seed of the study.
        base: digest of what else the trial's numbers depend on; see ``TrialSpec.base``.

    Raises:
        BadInput: the arm names a slot that is not in ``slots``.
    """
    parameters: dict[str, Any] = {}

    def noted(parameter: str, values: Range) -> Any:
        drawn = value_of(parameter, values)
        parameters[parameter] = list(drawn) if isinstance(drawn, tuple) else drawn  # as in JSON
        return drawn

    recipe, lr = spaces.draw(arm, slots, noted)
    trained = spaces.draw_training(arm, noted)
    batch_size = trained.pop(spaces.BATCH_SIZE, budget.batch_size)
    own_stops = stops(levels(budget), batch_size)
    return TrialSpec(
        kind=Kind.SEARCH,
        arm=name,
        parameters=parameters,
        recipe=Recipe.from_plain(recipe).plain(),
        lr=lr,
        seed=seed,
        max_examples=own_stops[-1],
        batch_size=batch_size,
        stops=own_stops,
        base=base,
        training=TrainingSettings.from_plain(trained).plain(),
    )
