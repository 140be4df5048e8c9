"""Shapes and textures that the general pictures are drawn with.

Coordinates ``x`` (to the right) and ``y`` (downwards) are in pixels from the picture's centre.
Coordinates ``u`` and ``v`` have the same directions, in units of the shape's half width and half
height.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 96  # the pictures are square
Plane = NDArray[np.floating[Any]]  # (96, 96) values or coordinates
Mask = NDArray[np.bool_]  # (96, 96)


def _regular(u: Plane, v: Plane, corners: int, depth: float) -> Mask:
    """A star with ``corners`` points; ``depth`` 0 gives a circle."""
    angle = np.arctan2(v, u)
    inside: Mask = np.hypot(u, v) < 1 - depth * (0.5 + 0.5 * np.cos(corners * angle + np.pi / 2))
    return inside


def _fan(u: Plane, v: Plane) -> Mask:
    """A slice of a ring that opens downwards."""
    radius = np.hypot(u, v + 1.2)
    inside: Mask = (np.abs(np.arctan2(u, v + 1.2)) < 0.6) & (radius > 0.45) & (radius < 2.1)
    return inside


def _pair(u: Plane, v: Plane) -> Mask:
    """Two ovals side by side."""
    inside: Mask = np.hypot((np.abs(u) - 0.55) / 0.42, v / 0.9) < 1
    return inside


def _chain(u: Plane, v: Plane) -> Mask:
    """Boxes one above the other."""
    inside: Mask = (np.abs(u) < 0.4) & (np.abs(v) < 1) & (np.abs((v * 2.5) % 1 - 0.5) < 0.37)
    return inside


def _wheel(u: Plane, v: Plane) -> Mask:
    """A ring with a cross inside."""
    radius = np.hypot(u, v)
    inside: Mask = (radius < 1) & ((radius > 0.75) | (np.abs(u) < 0.12) | (np.abs(v) < 0.12))
    return inside


def _inside_box(u: Plane, v: Plane) -> Mask:
    """The square from -0.95 to 0.95."""
    inside: Mask = np.maximum(np.abs(u), np.abs(v)) < 0.95
    return inside


OUTLINES: dict[str, Callable[[Plane, Plane], Mask]] = {
    "oval": lambda u, v: np.hypot(u, v) < 1,
    "box": lambda u, v: u**6 + v**6 < 0.8,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.8) < 0.2,
    "fan": _fan,
    "moon": lambda u, v: (np.hypot(u, v) < 1) & (np.hypot(u - 0.5, v) > 0.8),
    "triangle": lambda u, v: (v < 0.8) & (np.abs(u) < (v + 1) * 0.55),
    "cross": lambda u, v: _inside_box(u, v) & (np.minimum(np.abs(u), np.abs(v)) < 0.3),
    "diamond": lambda u, v: np.abs(u) + np.abs(v) < 1,
    "pair": _pair,
    "bars": lambda u, v: _inside_box(u, v) & (np.abs((u * 2) % 1 - 0.5) < 0.28),
    "grid": lambda u, v: (
        _inside_box(u, v)
        & (np.minimum(np.abs((u * 2) % 1 - 0.5), np.abs((v * 2) % 1 - 0.5)) < 0.17)
    ),
    "chain": _chain,
    "star": lambda u, v: _regular(u, v, 5, 0.6),
    "flower": lambda u, v: _regular(u, v, 8, 0.3),
    "pear": lambda u, v: np.hypot(u / (0.68 + 0.32 * v.clip(-1, 1)), v) < 1,
    "arch": lambda u, v: (np.abs(np.hypot(u, v - 0.5) - 1.05) < 0.3) & (v < 0.5),
    "hourglass": lambda u, v: (np.abs(v) < 0.95) & (np.abs(u) < 0.2 + 0.75 * v**2),
    "leaf": lambda u, v: (np.hypot(u - 0.7, v) < 1.22) & (np.hypot(u + 0.7, v) < 1.22),
    "wheel": _wheel,
    "wave": lambda u, v: (np.abs(u) < 0.95) & (np.abs(v - 0.4 * np.sin(4.5 * u)) < 0.4),
}


def _smoothed(noise: Plane, width_px: int) -> Plane:
    """Average noise over squares and bring it back to unit strength; edges wrap around."""
    total = noise.copy()
    for axis in (0, 1):
        line = total.copy()
        for shift in range(1, width_px):
            total += np.roll(line, shift, axis=axis)
    pattern: Plane = (total / (np.abs(total).mean() + 1e-6)).astype(np.float32)
    return pattern


def _waves(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Stripes of random direction and period."""
    angle, period_px = rng.uniform(0, np.pi), rng.uniform(6, 12)
    pattern: Plane = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period_px))
    return pattern


def ramp(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """A linear gradient in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    pattern: Plane = (x * np.cos(angle) + y * np.sin(angle)) / 28
    return pattern


def white_noise(rng: np.random.Generator) -> Plane:
    """Normal noise, independent for each pixel."""
    pattern: Plane = rng.standard_normal((SIDE_PX, SIDE_PX), dtype=np.float32)
    return pattern


def _checks(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """A checkerboard of random period."""
    period_px = rng.uniform(10, 16)
    turns = 2 * np.pi / period_px
    pattern: Plane = np.sign(np.sin(x * turns) * np.sin(y * turns))
    return pattern


TEXTURES: dict[str, Callable[[np.random.Generator, Plane, Plane], Plane]] = {
    "smooth": lambda rng, x, y: np.zeros_like(x),
    "grainy": lambda rng, x, y: white_noise(rng),
    "speckled": lambda rng, x, y: _smoothed(white_noise(rng), 3),
    "cloudy": lambda rng, x, y: _smoothed(white_noise(rng), 12),
    "striped": _waves,
    "checked": _checks,
    "shaded": ramp,
    "rippled": lambda rng, x, y: np.sin(np.hypot(x, y) * (2 * np.pi / rng.uniform(6, 12))),
}

SPOTS: dict[str, Callable[[Plane, Plane], Mask]] = {
    "disc": OUTLINES["oval"],
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 0.88,
    "triangle": OUTLINES["triangle"],
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.75) < 0.27,
    "cross": lambda u, v: (
        (np.maximum(np.abs(u), np.abs(v)) < 1) & (np.minimum(np.abs(u), np.abs(v)) < 0.33)
    ),
    "bar": lambda u, v: (np.abs(u) < 0.45) & (np.abs(v) < 1.25),
}
