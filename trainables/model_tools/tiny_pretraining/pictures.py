"""General pictures for pretraining: one big shape, some spots, and the facts that are true of them.

A picture is a 96 by 96 drawing of a big shape (twenty outlines) with a texture, on a background,
with zero to five spots on it, seen through noise, blur and shading. Nothing here is medical:
outlines have everyday names, and every parameter is drawn at random. ``Facts`` holds what can be
asked. Module ``shapes`` has shapes and textures, ``picture_questions`` has questions about the
facts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.model_tools.tiny_pretraining.shapes import (
    OUTLINES,
    SIDE_PX,
    SPOTS,
    TEXTURES,
    Mask,
    Plane,
    ramp,
    white_noise,
)

COLOURS = {  # factors that turn a grey value into red, green and blue
    "grey": (1.0, 1.0, 1.0),
    "red": (1.0, 0.35, 0.3),
    "green": (0.35, 1.0, 0.4),
    "blue": (0.35, 0.5, 1.0),
    "yellow": (1.0, 0.95, 0.3),
}
SPOT_RADIUS_PX = {"small": (2.0, 3.0), "medium": (4.3, 5.7), "large": (7.5, 10.0)}
MOST_SPOTS = {"small": 5, "medium": 5, "large": 3}
NOISES = ("clean", "noisy")
LINES = ("none", "none", "bright", "dark")  # half of the pictures have none


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All facts of one picture that a question can ask for."""

    outline: str  # one of OUTLINES
    texture: str  # one of TEXTURES
    ground: str  # "dark" or "bright": the background of the big shape
    tone: str  # "bright" or "dark": the big shape, compared with its background
    extent: str  # "wide", "tall" or "even"
    breadth: str  # "small", "medium" or "large": size of the big shape
    place: str  # "left", "middle" or "right": where the big shape stands
    rim: str  # "bright", "dark" or "none": a line around the big shape
    core: str  # "bright", "dark" or "none": a smaller copy inside the big shape
    colour: str  # one of COLOURS
    noise: str  # one of NOISES
    spots: int  # 0 to 5; the facts below are "none" if it is 0
    spot_shape: str
    spot_size: str
    spot_tone: str
    spot_side: str  # "left", "right" or "both"
    spot_height: str  # "top", "bottom" or "both"; "none" if a spot is near the middle line


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawing, and the facts that are true of it."""

    pixels: NDArray[np.uint8]  # (96, 96, 3)
    layout: NDArray[np.float32]
    """Shape (2, 24, 24): the share of each block of 4 by 4 pixels that the big shape takes, and the
    share that spots take."""
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Position and size of the big shape, in pixels; ``tilt`` is in radians."""

    x: float
    y: float
    half_width: float
    half_height: float
    tilt: float

    def local(self, x: Plane, y: Plane, scale: float = 1.0) -> tuple[Plane, Plane]:
        """Coordinates (u, v) of the pixels, for a shape ``scale`` times as large as the frame."""
        dx, dy = x - self.x, y - self.y
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        u = (dx * c + dy * s) / (self.half_width * scale)
        v = (dy * c - dx * s) / (self.half_height * scale)
        return u.astype(np.float32), v.astype(np.float32)


_AXIS = np.arange(SIDE_PX, dtype=np.float32) - (SIDE_PX - 1) / 2
_Y, _X = (np.ascontiguousarray(plane) for plane in np.meshgrid(_AXIS, _AXIS, indexing="ij"))
_BREADTH_PX = {"small": (18, 23), "medium": (27, 33), "large": (37, 44)}
_STRETCH = {"wide": (1.15, 1.5), "even": (0.96, 1.04), "tall": (0.66, 0.87)}


def _frame(rng: np.random.Generator, breadth: str, extent: str, place: str) -> _Frame:
    """Draw a frame for the given breadth, extent and place."""
    size, stretch = rng.uniform(*_BREADTH_PX[breadth]), np.sqrt(rng.uniform(*_STRETCH[extent]))
    shift = {"left": -1, "middle": 0, "right": 1}[place] * rng.uniform(14, 22)
    return _Frame(
        x=shift + rng.uniform(-4, 4),
        y=rng.uniform(-5, 5),
        half_width=min(size * stretch, 46),
        half_height=min(size / stretch, 46),
        tilt=rng.normal(0, 0.12),
    )


_CLEAR_OF_MIDDLE_PX = 5.0  # a spot nearer than this to a middle line has no side


def _place_spots(
    rng: np.random.Generator, wanted: int, radius_px: float, side: str, shape: _Frame
) -> list[tuple[float, float]]:
    """Choose centres (x, y) of at most ``wanted`` spots, apart from each other and on a side.

    They lie inside the hull of the big shape.
    """
    centres: list[tuple[float, float]] = []
    for _ in range(60):
        if len(centres) == wanted:
            break
        radius, angle = np.sqrt(rng.random()) * 0.85, rng.uniform(0, 2 * np.pi)
        x = shape.x + shape.half_width * radius * np.cos(angle)
        y = shape.y + shape.half_height * radius * np.sin(angle)
        fits = max(abs(x), abs(y)) < SIDE_PX / 2 - radius_px - 1 and abs(x) > _CLEAR_OF_MIDDLE_PX
        on_side = side == "both" or (x < 0) == (side == "left")
        apart = all(np.hypot(x - a, y - b) > 2.3 * radius_px + 2 for a, b in centres)
        if fits and on_side and apart:
            centres.append((float(x), float(y)))
    return centres


def _sides(values: list[float], low: str, high: str) -> str:
    """The side of the middle line on which all ``values`` lie: ``low``, ``high`` or both.

    It is "none" if there are no values, or if one is too near to the line.
    """
    if not values or min(abs(value) for value in values) <= _CLEAR_OF_MIDDLE_PX:
        return "none"
    below = {value < 0 for value in values}
    return "both" if len(below) == 2 else (low if True in below else high)


TEXTURE_STRENGTH = (0.08, 0.2)


def draw(rng: np.random.Generator) -> Picture:
    """Draw one picture; all randomness comes from ``rng``."""
    outline, texture = _pick(rng, tuple(OUTLINES)), _pick(rng, tuple(TEXTURES))
    place = _pick(rng, ("left", "middle", "middle", "middle", "right"))
    fitting = ("small", "medium", "large", "large") if place == "middle" else ("small", "medium")
    breadth = _pick(rng, fitting)
    extent, spot_tone = _pick(rng, tuple(_STRETCH)), _pick(rng, ("bright", "dark"))
    frame = _frame(rng, breadth, extent, place)

    # Bright spots need a darker place to lie on, and dark ones a brighter place.
    low, high = (0.02, 0.58) if spot_tone == "bright" else (0.42, 0.98)
    ground, shape = rng.uniform(low, high, 2)
    while abs(ground - shape) < 0.15:
        ground, shape = rng.uniform(low, high, 2)
    step = min(float(abs(ground - shape)), 0.35)

    mask = OUTLINES[outline](*frame.local(_X, _Y))
    strength = rng.uniform(*TEXTURE_STRENGTH)
    pattern = shape + strength * TEXTURES[texture](rng, _X, _Y)
    image = np.where(mask, pattern, np.float32(ground)).astype(np.float32)
    rim, core = _pick(rng, LINES), _pick(rng, LINES)
    if rim != "none":
        line = OUTLINES[outline](*frame.local(_X, _Y, 1.12)) & ~mask
        image[line] = np.clip(shape + (0.35 if rim == "bright" else -0.35), 0, 1)
    if core != "none":
        inner = OUTLINES[outline](*frame.local(_X, _Y, 0.5)) & mask
        image[inner] += step * 0.8 if core == "bright" else -step * 0.8

    size, spot_shape = _pick(rng, tuple(SPOT_RADIUS_PX)), _pick(rng, tuple(SPOTS))
    wanted = int(rng.integers(0, MOST_SPOTS[size] + 1))
    radius_px = float(rng.uniform(*SPOT_RADIUS_PX[size]))
    centres = _place_spots(rng, wanted, radius_px, _pick(rng, ("left", "right", "both")), frame)
    spotted = np.zeros_like(mask)
    for x, y in centres:
        spot = SPOTS[spot_shape]((_X - x) / radius_px, (_Y - y) / radius_px)
        contrast = rng.uniform(0.28, 0.45)
        under = float(np.median(image[spot])) if spot.any() else shape
        image[spot] = np.clip(under + (contrast if spot_tone == "bright" else -contrast), 0, 1)
        spotted |= spot

    noise, colour = _pick(rng, NOISES), _pick(rng, ("grey",) * 6 + tuple(COLOURS)[1:])
    grey = _seen_through(rng, image, noise)
    rgb = grey[:, :, None] * np.array(COLOURS[colour], np.float32)
    return Picture(
        pixels=(rgb * 255).astype(np.uint8),
        layout=np.stack([_shares(mask), _shares(spotted)]),
        facts=Facts(
            outline=outline,
            texture=texture,
            ground="bright" if ground > 0.5 else "dark",
            tone="bright" if shape > ground else "dark",
            extent=extent,
            breadth=breadth,
            place=place,
            rim=rim,
            core=core,
            colour=colour,
            noise=noise,
            spots=len(centres),
            spot_shape=spot_shape if centres else "none",
            spot_size=size if centres else "none",
            spot_tone=spot_tone if centres else "none",
            spot_side=_sides([x for x, _ in centres], "left", "right"),
            spot_height=_sides([y for _, y in centres], "top", "bottom"),
        ),
    )


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _shares(mask: Mask) -> Plane:
    """Shape (24, 24): the share of true pixels in each block of 4 by 4."""
    shares: Plane = mask.reshape(24, 4, 24, 4).mean((1, 3), dtype=np.float32)
    return shares


def _seen_through(rng: np.random.Generator, image: Plane, noise: str) -> Plane:
    """Add shading, blur and noise to the whole picture, and clip it to 0..1."""
    if rng.random() < 0.4:
        image = image * (1 + 0.2 * ramp(rng, _X, _Y).clip(-1.5, 1.5))
    if rng.random() < 0.5:
        image = (image + np.roll(image, 1, 0)) / 2
        image = (image + np.roll(image, 1, 1)) / 2
    sigma = rng.uniform(0, 0.015) if noise == "clean" else rng.uniform(0.04, 0.09)
    return np.clip(image + sigma * white_noise(rng), 0, 1).astype(np.float32)
