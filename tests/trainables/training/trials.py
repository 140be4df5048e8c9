"""Small trials of any method, for the tests of this folder."""

from __future__ import annotations

from typing import Any

from trainables.engine.training_settings import TrainingSettings
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


def config(workload: Workload, method: str = "lora", **settings: Any) -> TrialConfig:
    tuning = {"method": method, "everywhere": True, **settings.pop("tuning", {})}
    return TrialConfig(
        **{
            "recipe": Recipe.from_plain(dict.fromkeys(workload.model.slots, tuning)),
            "lr": 3e-3,
            "seed": 0,
            "max_examples": 64,
            "batch_size": 8,
            **settings,
        }
    )


def losses(trial: Trial, steps: int) -> list[float]:
    size = trial.config.batch_size
    return [trial.train(trial.examples_seen + size) for _ in range(steps)]


def warmed(share: float) -> TrainingSettings:
    return TrainingSettings(warmup=share)
