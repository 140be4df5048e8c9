"""Draws a case: body and findings, then the blur, noise and artefacts of the imaging.

Images must be the same on every machine to the last bit. All arithmetic is therefore elementwise +
- * / and square root on float64, which IEEE 754 rounds exactly. Sums over arrays, matrix products,
sine, exponential and power are avoided, since their last bits differ between libraries.

``x`` and ``y`` are float64 of shape (96, 96): the position of each pixel on the canvas of
``anatomy``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainables.data._phantom.anatomy import SIZE, TISSUES, Shape, View, view_of
from trainables.data._phantom.bits import Bits
from trainables.data._phantom.cases import LESIONS, Case

Plane = NDArray[np.float64]  # (96, 96)

RADIUS = {"small": 3.6, "medium": 6.2, "large": 9.6}  # radius of a lesion in pixels
_MIDDLE = SIZE / 2
_APEX = -10.0  # y of the point from which the fan of an ultrasound image spreads


def draw(case: Case) -> NDArray[np.uint8]:
    """Draw the image of a case; grey levels as uint8 of shape (96, 96)."""
    bits = Bits(case.seed)
    x, y = _canvas(bits)
    view = view_of(case.modality, case.plane, case.organ)
    body = _body(case.modality, view, x, y, bits)
    if case.finding in LESIONS:
        for lesion_x, lesion_y in _places(case, view, bits):
            body = _lesion(body, x - lesion_x, y - lesion_y, RADIUS[case.size], case.finding)
    elif case.finding == "effusion":
        body = _effusion(body, x, y, view, case.side, bits)
    elif case.finding == "fracture":
        body = _fracture(body, x, y, bits)
    image = _MACHINES[case.modality](body, bits)
    return np.asarray(np.floor(np.clip(image, 0.0, 255.0) + 0.5), dtype=np.uint8)


def _canvas(bits: Bits) -> tuple[Plane, Plane]:
    """Pixel positions for a patient who lies a little askew: moved, scaled and sheared."""
    rows = np.repeat(np.arange(SIZE, dtype=np.float64), SIZE).reshape(SIZE, SIZE) + 0.5
    columns = rows.T
    move_x, move_y = bits.between(-2.5, 2.5), bits.between(-2.5, 2.5)
    scale, shear = bits.between(0.93, 1.07), bits.between(-0.05, 0.05)
    y = (rows - _MIDDLE - move_y) / scale
    x = (columns - _MIDDLE - move_x) / scale + shear * y
    return x + _MIDDLE, y + _MIDDLE


def _body(modality: str, view: View, x: Plane, y: Plane, bits: Bits) -> Plane:
    """Draw shapes over one another, or, in an x ray, add them up."""
    adds_up = modality == "x ray"
    body = np.full((SIZE, SIZE), 12.0 if adds_up else 3.0)
    for shape in view.shapes:
        covered, depth = _cover(shape, x, y, bits)
        value = TISSUES[modality][shape.tissue] * bits.between(0.95, 1.05)
        if adds_up:
            body = np.clip(body + covered * (0.6 + 0.4 * depth) * value, 0.0, 255.0)
        else:
            body = _paint(body, covered, value)
    return body


def _cover(shape: Shape, x: Plane, y: Plane, bits: Bits) -> tuple[Plane, Plane]:
    """How much of each pixel a shape covers, and how deep the shape is there, both from 0 to 1."""
    rx, ry = shape.rx * bits.between(0.97, 1.03), shape.ry * bits.between(0.97, 1.03)
    across = (x - shape.x - bits.between(-0.6, 0.6)) / rx
    down = (y - shape.y - bits.between(-0.6, 0.6)) / ry
    across, down = across * across, down * down
    squared = np.sqrt(across * across + down * down) if shape.form == "box" else across + down
    away = np.sqrt(squared)  # 1 on the outline
    thin = min(rx, ry)
    if shape.form == "ring":
        return np.clip(1.7 - np.abs(away - 1.0) * thin, 0.0, 1.0), np.ones_like(x)
    return np.clip((1.0 - away) * thin + 0.5, 0.0, 1.0), np.sqrt(np.clip(1.0 - squared, 0.0, 1.0))


def _paint(under: Plane, covered: Plane, value: float) -> Plane:
    """Blend a brightness over an image, as far as each pixel is covered."""
    return under * (1.0 - covered) + covered * value


def _places(case: Case, view: View, bits: Bits) -> list[tuple[float, float]]:
    """Choose centres of lesions in the view's zones, clear of each other and of the middle line."""
    radius = RADIUS[case.size]
    halves = ["left", "right"] if case.side == "both" else [case.side]
    first = bits.below(2)  # if three lesions are on both sides, either half may have two
    while True:  # ends, since cases._Findings draws no more lesions than fit
        places: list[tuple[float, float]] = []
        for _ in range(60):
            half = halves[(first + len(places)) % len(halves)]
            zone = view.left if half == "left" else view.right
            across, down = bits.between(-1.0, 1.0), bits.between(-1.0, 1.0)
            x, y = zone[0] + across * zone[2], zone[1] + down * zone[3]
            inside = across * across + down * down <= 1.0
            clear = abs(x - _MIDDLE) >= 0.7 * radius + 1.5 and all(
                (x - a) * (x - a) + (y - b) * (y - b) >= (2 * radius + 2.5) * (2 * radius + 2.5)
                for a, b in places
            )
            if inside and clear:
                places.append((x, y))
            if len(places) == case.count:
                return places


def _lesion(body: Plane, x: Plane, y: Plane, radius: float, finding: str) -> Plane:
    """Draw a mass, bright with a dark rim, or a cyst, dark with a bright wall.

    Both can be seen on any tissue.
    """
    core, rim = (250.0, 25.0) if finding == "mass" else (8.0, 225.0)
    away = np.sqrt(x * x + y * y)
    body = _paint(body, np.clip(radius + 0.5 - away, 0.0, 1.0), rim)
    return _paint(body, np.clip(radius - 0.7 - away, 0.0, 1.0), core)


def _effusion(body: Plane, x: Plane, y: Plane, view: View, side: str, bits: Bits) -> Plane:
    """Draw fluid at the bottom of a lung, higher at the lung's outer edge."""
    for lung in (shape for shape in view.shapes if shape.tissue in ("lung", "air")):
        if side in ("left", "right") and (lung.x < _MIDDLE) != (side == "left"):
            continue
        covered, _ = _cover(lung, x, y, bits)
        level = lung.y + lung.ry * bits.between(0.1, 0.35)
        below = np.clip(y - level + 0.3 * (np.abs(x - _MIDDLE) - 20.0), 0.0, 1.0)
        body = _paint(body, covered * below, 224.0)
    return body


def _fracture(body: Plane, x: Plane, y: Plane, bits: Bits) -> Plane:
    """Draw a jagged gap through the femur, and push the part above it aside."""
    teeth = np.abs((x / 8.0 - np.floor(x / 8.0)) - 0.5) * 7.0
    line = y - bits.between(12.0, 26.0) - bits.between(-0.4, 0.4) * (x - 50.0) - teeth
    near = np.abs(x - 50.0) < 17.0
    aside = np.roll(body, 4 if bits.below(2) else -4, axis=1)
    body = np.where(near & (line < 0.0), aside, body)
    return _paint(body, np.where(near, np.clip(2.4 - np.abs(line), 0.0, 1.0), 0.0), 14.0)


def _x_ray(body: Plane, bits: Bits) -> Plane:
    """Add to a body what an x-ray machine adds."""
    image = _blur(body)
    if _has_artefact(bits):  # a wire on the skin
        line = _COLUMNS - bits.between(10.0, 86.0) - bits.between(-0.5, 0.5) * _ROWS
        image = image + np.clip(1.2 - np.abs(line), 0.0, 1.0) * 70.0
    image = image * _shading(bits, 0.12)
    return image + bits.noise(SIZE, SIZE) * bits.between(3.0, 6.0)


def _ct(body: Plane, bits: Bits) -> Plane:
    """Add to a body what a CT scanner adds."""
    image = body
    if _has_artefact(bits):  # rings of a detector out of calibration
        x, y = _COLUMNS - _MIDDLE, _ROWS - _MIDDLE
        ring = np.floor(np.sqrt(x * x + y * y) / 2.5)
        image = image + (ring - 2.0 * np.floor(ring / 2.0) - 0.5) * 10.0
    return image + bits.noise(SIZE, SIZE) * bits.between(4.0, 9.0)


def _mri(body: Plane, bits: Bits) -> Plane:
    """Add to a body what an MRI scanner adds."""
    image = _blur(body) * 0.5 + body * 0.5
    if _has_artefact(bits):  # a ghost of a patient who moved
        image = image * 0.9 + np.roll(image, SIZE // 3, axis=0) * 0.14
    image = image * _shading(bits, 0.2)
    return image + bits.noise(SIZE, SIZE) * bits.between(5.0, 10.0)


def _ultrasound(body: Plane, bits: Bits) -> Plane:
    """Turn a body into a fan-shaped ultrasound image with speckle."""
    speckle = bits.noise(SIZE, SIZE)
    speckle = 0.7 * speckle + 0.5 * np.roll(speckle, 1, axis=1)
    image = _blur(body) * (1.0 + 0.24 * speckle) + 4.0
    depth = _ROWS - _APEX
    angle = (_COLUMNS - _MIDDLE) / depth
    if _has_artefact(bits):  # the shadow of something that lets no sound through
        start = bits.between(-0.5, 0.4)
        shadow = (angle > start) & (angle < start + 0.13) & (_ROWS > 30.0)
        image = np.where(shadow, image * 0.5, image)
    away = np.sqrt((_COLUMNS - _MIDDLE) * (_COLUMNS - _MIDDLE) + depth * depth)
    fan = (np.abs(angle) < 0.66) & (away > 20.0) & (away < 102.0)
    return np.where(fan, image, 0.0)


_MACHINES = {"x ray": _x_ray, "ct": _ct, "mri": _mri, "ultrasound": _ultrasound}
_ROWS: Plane = np.repeat(np.arange(SIZE, dtype=np.float64), SIZE).reshape(SIZE, SIZE) + 0.5
_COLUMNS: Plane = _ROWS.T


def _has_artefact(bits: Bits) -> bool:
    """Draw whether an image gets an artefact, which three in ten do."""
    return bits.below(10) < 3


def _shading(bits: Bits, strength: float) -> Plane:
    """Brightness of a coil or beam that is stronger at one edge: a tilted plane around 1."""
    down, across = bits.between(-strength, strength), bits.between(-strength, strength)
    return 1.0 + (down * (_ROWS - _MIDDLE) + across * (_COLUMNS - _MIDDLE)) / _MIDDLE


def _blur(image: Plane) -> Plane:
    """Mean of each pixel and its neighbours, weighted 1 2 1 in both directions."""
    padded = np.pad(image, 1, mode="edge")
    rows = padded[:-2] + 2.0 * padded[1:-1] + padded[2:]
    both: Plane = rows[:, :-2] + 2.0 * rows[:, 1:-1] + rows[:, 2:]
    return both / 16.0
