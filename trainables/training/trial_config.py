"""Configuration of one trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables.engine.training_settings import DEFAULT_TRAINING, TrainingSettings
from trainables.errors import BadInput
from trainables.recipe import Recipe
from trainables.training.regime import DEFAULT_REGIME, Regime


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """A point of the search space, with one seed."""

    recipe: Recipe
    lr: float
    """Peak learning rate."""
    seed: int
    """Seed of the data order, of dropout and of the initial values of adapters."""
    max_examples: int
    """Length of the learning-rate schedule in training examples, repeated ones counted."""
    batch_size: int = 32
    training: TrainingSettings = DEFAULT_TRAINING
    """Optimizer, schedule, clipping and label smoothing."""
    regime: Regime = DEFAULT_REGIME
    """Training settings of the study."""
    split: int = 0
    """Number of the division of the data by image (``Workload.divided``)."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise BadInput(f"lr must be positive but got {self.lr}")
        for name in ("max_examples", "batch_size"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1 but got {getattr(self, name)}")

    @property
    def label_smoothing(self) -> float:
        """Label smoothing of the trial's training loss: its own or, without one, the study's."""
        own = self.training.label_smoothing
        return self.regime.label_smoothing if own is None else own

    def lr_at(self, examples_seen: int) -> float:
        """Learning rate of the step after which ``examples_seen`` examples have been seen.

        It is the schedule's value in the middle of the step, so that no step, however few there
        are, is wasted on a rate of 0.
        """
        warmup, steps = self.training.warmup, math.ceil(self.max_examples / self.batch_size)
        progress = min((examples_seen / self.batch_size - 0.5) / steps, 1.0)
        if progress < warmup:
            return self.lr * progress / warmup
        return self.lr * self.training.decay((progress - warmup) / (1 - warmup))
