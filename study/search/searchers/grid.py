"""Grid search: points that are spread evenly, in an order that is useful when stopped early.

A continuous range has 31 steps, equal on a logarithmic scale where the range is one, and a choice
has its values. From the middle on, each point is the one that is farthest from all before it and
from the edges (coffee-house design; Müller 2001, doi 10.1007/978-3-642-57576-1_14): in one
dimension the middle, then the quarters, then the eighths. Once the grid is drawn, steps are halved.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from study.search.searchers.common.cube import Cube
from study.search.searchers.common.known_trials import Past, Point

LEVELS = range(5, 9)
"""A range has ``2 ** level - 1`` steps, for one level after the other."""
MOST = 1024
"""Points that are ordered. Of a larger grid, this many points are drawn at random."""
CHOICE = 0.5
"""Distance between the ends of a choice, where that of a continuous range is 1."""


def point(past: Past, arm: str) -> Point:
    """The next point of ``arm`` on its grid."""
    cube = Cube(past.ranges(arm))
    sizes = tuple(None if axis.values is None else len(axis.values) for axis in cube.axes)
    rest = past.draws.get(arm, 0)
    for level in LEVELS if None in sizes else LEVELS[:1]:  # choices have no finer grid
        rows = _new_rows(sizes, tuple(cube.unordered), level)
        for row in rows[rest:]:
            found = cube.point(row)
            if not past.known(arm, found):
                return found
        rest = max(rest - len(rows), 0)
    return past.random(arm)


@lru_cache(maxsize=64)
def _new_rows(sizes: tuple[int | None, ...], unordered: tuple[bool, ...], level: int) -> np.ndarray:
    """The points of a grid that coarser ones lack, in the order in which they are drawn."""
    rows = _ordered(sizes, unordered, level)
    if level == LEVELS[0]:
        return rows
    coarser = {
        tuple(row)
        for lower in range(LEVELS[0], level)
        for row in _new_rows(sizes, unordered, lower)
    }
    return np.array([row for row in rows if tuple(row) not in coarser]).reshape(-1, len(sizes))


def _ordered(sizes: tuple[int | None, ...], unordered: tuple[bool, ...], level: int) -> np.ndarray:
    """The points of a grid in the order in which they are drawn, [points, axes].

    ``sizes`` has the number of values of each choice and None for a continuous range.
    """
    steps = 2**level
    axes = [
        np.arange(1, steps) / steps
        if size is None
        else np.linspace(0, 1, size)
        if size > 1
        else np.zeros(1)
        for size in sizes
    ]
    chance = np.random.default_rng(0)
    if np.prod([float(len(axis)) for axis in axes]) > MOST:
        rows = np.stack([chance.choice(axis, MOST) for axis in axes], axis=1)
        rows = np.unique(rows, axis=0)
    else:
        rows = np.array(list(itertools.product(*axes))).reshape(-1, len(axes))
    if not axes:
        return rows
    continuous = np.array([size is None for size in sizes])
    edge = np.where(continuous, np.minimum(rows, 1 - rows), np.inf).min(axis=1)
    weight = np.where(continuous, 1.0, CHOICE)
    far = edge.copy()
    middle = int(np.argmin((np.abs(rows - 0.5) * weight).sum(axis=1)))
    order: list[int] = []
    taken = np.zeros(len(rows), bool)
    for _ in range(len(rows)):
        best = int(np.argmax(np.where(taken, -1.0, far))) if order else middle
        order.append(best)
        taken[best] = True
        apart = np.abs(rows - rows[best])
        apart = np.where(np.array(unordered), apart != 0, apart) * weight
        far = np.minimum(far, np.sqrt((apart**2).sum(axis=1)))
    return rows[order]
