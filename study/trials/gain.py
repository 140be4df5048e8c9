"""What an arm may still gain by more search, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

TENTH = 1.2816
"""Standard deviations from the mean of a normal distribution to its 90th percentile."""


class GainUnit(StrEnum):
    """Unit of what an arm may still gain."""

    POINTS = "points"
    """Percentage points of accuracy on the validation split."""
    LOSS = "loss"
    """Validation loss."""


@dataclass(frozen=True, kw_only=True)
class RemainingGain:
    """How much better than an arm's best trial its best possible one is expected to be."""

    mean: float
    low: float
    """10th percentile of the gain."""
    high: float
    """90th percentile of the gain."""
    unit: GainUnit = GainUnit.LOSS

    def in_points(
        self, points_per_loss: float, error: float = 0.0, most: float = inf
    ) -> RemainingGain:
        """Convert a gain in loss to points, ``points_per_loss`` for each unit of loss, of which
        ``error`` is the standard error. The range has both doubts in it. ``most``: points that are
        left to 100%."""
        doubt = TENTH * error
        return RemainingGain(
            mean=min(self.mean * points_per_loss, most),
            low=min(self.low * max(points_per_loss - doubt, 0.0), most),
            high=min(self.high * (points_per_loss + doubt), most),
            unit=GainUnit.POINTS,
        )

    @property
    def numbers(self) -> str:
        """The gain with its range, without the unit."""
        digits = 1 if self.unit is GainUnit.POINTS else 3
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    @property
    def text(self) -> str:
        """The gain with its range and unit."""
        name = "points" if self.unit is GainUnit.POINTS else "of validation loss"
        low, high = self.numbers.split(" ", 1)
        return f"{low} {name} {high}"
