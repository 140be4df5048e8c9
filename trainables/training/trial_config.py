"""Configuration of one trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables.errors import BadInput
from trainables.recipe import Recipe
from trainables.training.regime import DEFAULT_REGIME, Regime


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """A point of the search space, with one seed."""

    recipe: Recipe
    lr: float
    """Peak learning rate of AdamW."""
    seed: int
    """Seed of the data order, of dropout and of the initial values of adapters."""
    max_examples: int
    """Length of the learning-rate schedule in training examples, repeated ones counted."""
    batch_size: int = 32
    weight_decay: float = 0.01
    """Weight decay of AdamW, for matrices only."""
    warmup: float = 0.05
    """Share of the schedule in which the learning rate rises; then it falls to 0 by a cosine."""
    regime: Regime = DEFAULT_REGIME
    """Training settings of the study."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise BadInput(f"lr must be positive but got {self.lr}")
        for name in ("max_examples", "batch_size"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1 but got {getattr(self, name)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise BadInput(f"weight_decay must not be negative but got {self.weight_decay}")
        if not 0 <= self.warmup < 1:
            raise BadInput(f"warmup must be in [0, 1) but got {self.warmup}")

    def lr_at(self, examples_seen: int) -> float:
        """Learning rate of the step after which ``examples_seen`` examples have been seen.

        It is the schedule's value in the middle of the step, so that no step, however few there
        are, is wasted on a rate of 0.
        """
        steps = math.ceil(self.max_examples / self.batch_size)
        progress = min((examples_seen / self.batch_size - 0.5) / steps, 1.0)
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        falling = (progress - self.warmup) / (1 - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * falling))
