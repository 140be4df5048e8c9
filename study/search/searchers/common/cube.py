"""Points of an arm as numbers: each parameter is an axis from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from study.search.searchers.common.known_trials import Point, at


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One parameter as numbers from 0 to 1."""

    name: str
    distribution: BaseDistribution
    values: tuple[Any, ...] | None
    """The values of a choice, those that are numbers in ascending order; None: the range is
    continuous."""
    ordered: bool
    """Whether values that are close to each other have like results. Numbers have; texts have
    not."""

    @classmethod
    def from_distribution(cls, name: str, distribution: BaseDistribution) -> Axis:
        """The axis of a parameter."""
        if not isinstance(distribution, CategoricalDistribution):
            return cls(name=name, distribution=distribution, values=None, ordered=True)
        values = tuple(dict.fromkeys(distribution.choices))
        numbers = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        if numbers:
            values = tuple(sorted(values, key=lambda value: float(value or 0)))
        return cls(name=name, distribution=distribution, values=values, ordered=numbers)

    def position(self, value: Any) -> float:
        """Where a value lies. The values of a choice are the same distance apart: ranks and factors
        are mostly listed so that each is a multiple of the one before."""
        if self.values is not None:
            return self.values.index(value) / max(len(self.values) - 1, 1)
        assert isinstance(self.distribution, FloatDistribution)
        low, high = self.distribution.low, self.distribution.high
        if self.distribution.log:
            return math.log(value / low) / math.log(high / low)
        return float((value - low) / (high - low))

    def value(self, position: float) -> Any:
        """The value that lies at a position, or closest to it."""
        if self.values is not None:
            return self.values[round(position * (len(self.values) - 1))]
        return at(position, self.distribution)


class Cube:
    """The points of an arm as rows of numbers from 0 to 1."""

    def __init__(self, ranges: Mapping[str, BaseDistribution]) -> None:
        """Make an axis of each parameter."""
        self.axes = [
            Axis.from_distribution(name, distribution) for name, distribution in ranges.items()
        ]
        self.unordered = np.array([not axis.ordered for axis in self.axes], bool)

    def row(self, point: Mapping[str, Any]) -> np.ndarray:
        """The numbers of a point, one for each axis."""
        return np.array([axis.position(point[axis.name]) for axis in self.axes])

    def point(self, row: np.ndarray) -> Point:
        """The point whose numbers are closest to ``row``."""
        return {axis.name: axis.value(float(p)) for axis, p in zip(self.axes, row, strict=True)}

    def on_values(self, rows: np.ndarray) -> np.ndarray:
        """Rows [N, axes] moved into the cube and onto the values of each choice."""
        moved: np.ndarray = np.clip(rows, 0.0, 1.0)
        for column, axis in enumerate(self.axes):
            if axis.values is not None:
                steps = max(len(axis.values) - 1, 1)
                moved[:, column] = np.round(moved[:, column] * steps) / steps
        return moved

    def random(self, chance: np.random.Generator, count: int) -> np.ndarray:
        """Random rows [``count``, axes], each value of a choice equally likely."""
        rows = chance.random((count, len(self.axes)))
        for column, axis in enumerate(self.axes):
            if axis.values is not None:
                number = len(axis.values)
                index = np.minimum((rows[:, column] * number).astype(int), number - 1)
                rows[:, column] = index / max(number - 1, 1)
        return rows
