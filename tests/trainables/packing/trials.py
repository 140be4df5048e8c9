"""Small trials of any method, for the tests of passes that trials share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainables import registry
from trainables.errors import BadInput
from trainables.model_contract import Model
from trainables.packing.trial_group import Arrival, TrialGroup
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

METHODS = [name for name in registry.METHODS.names() if name != "frozen"]


def config(model: Model, method: str = "", *, frozen: int = 0, **settings: Any) -> TrialConfig:
    """Configuration with a method in all slots that can have it but those of ``frozen`` stages."""
    tuning = {"method": method, "everywhere": True, **settings.pop("tuning", {})}
    still = {slot for stage in model.stages[:frozen] for slot in stage.slots}
    return TrialConfig(
        **{
            "recipe": Recipe.from_plain(
                {slot: tuning for slot in model.slots if slot not in still}
            ),
            "lr": 3e-3,
            "seed": 0,
            "max_examples": 64,
            "batch_size": 4,
            **settings,
        }
    )


def suits(workload: Workload, settings: TrialConfig) -> bool:
    try:
        Trial(workload, settings)
    except BadInput:  # a Llama-like decoder has no bias
        return False
    return True


def arrivals(group: TrialGroup, steps: int = 12) -> Iterator[Arrival]:
    """Step until all trials have arrived."""
    for _ in range(steps):
        yield from group.step()
