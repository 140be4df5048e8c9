"""Anatomy of the phantoms: bodies as tables of simple shapes.

The canvas has 96 x 96 units, with (0, 0) at the top left. Later shapes lie on top of earlier ones.
In slices (ct, mri) a shape names its tissue, and the modality gives the tissue its brightness. In
projections (x ray) shapes add up, as absorption does. In ultrasound the brightness is the echo. The
bodies are as simple as a phantom in a physics department.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SIZE = 96  # pixels, height and width

Form = Literal["disk", "ring", "box"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A filled ellipse (disk), its outline (ring) or a rectangle with round corners (box)."""

    form: Form
    tissue: str
    x: float  # x of the centre
    y: float  # y of the centre
    rx: float  # half width
    ry: float  # half height


@dataclass(frozen=True, kw_only=True)
class View:
    """The shapes to draw for one (modality, plane, organ), and the zones for its lesions."""

    shapes: tuple[Shape, ...]
    # Lesions have their centres in these ellipses (x, y, rx, ry): the left and the right half.
    left: tuple[float, float, float, float]
    right: tuple[float, float, float, float]


def disk(tissue: str, x: float, y: float, rx: float, ry: float) -> tuple[Shape, ...]:
    """One ellipse, as a group of shapes."""
    return (Shape(form="disk", tissue=tissue, x=x, y=y, rx=rx, ry=ry),)


def ring(tissue: str, x: float, y: float, rx: float, ry: float) -> tuple[Shape, ...]:
    """The outline of one ellipse, as a group of shapes."""
    return (Shape(form="ring", tissue=tissue, x=x, y=y, rx=rx, ry=ry),)


def box(tissue: str, x: float, y: float, rx: float, ry: float) -> tuple[Shape, ...]:
    """One rectangle with round corners, as a group of shapes."""
    return (Shape(form="box", tissue=tissue, x=x, y=y, rx=rx, ry=ry),)


def pair(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Shapes and their mirror images in the other half of the canvas."""
    mirrored = tuple(
        Shape(form=s.form, tissue=s.tissue, x=SIZE - s.x, y=s.y, rx=s.rx, ry=s.ry) for s in shapes
    )
    return shapes + mirrored


def column(tissue: str, x: float, top: int, bottom: int, rx: float) -> tuple[Shape, ...]:
    """A spine: one vertebra above the other, every 9 units, with gaps for the discs."""
    return tuple(s for y in range(top, bottom, 9) for s in box(tissue, x, y, rx, 3.4))


def view(
    *shapes: tuple[Shape, ...],
    left: tuple[float, float, float, float],
    right: tuple[float, float, float, float] | None = None,
) -> View:
    """Make a view of groups of shapes; without ``right``, the right zone mirrors the left one."""
    x, y, rx, ry = left
    return View(
        shapes=tuple(shape for group in shapes for shape in group),
        left=left,
        right=right or (SIZE - x, y, rx, ry),
    )


# Modality -> brightness of its tissues, 0 to 255. Lesions lie on middle greys and stand out.
TISSUES: dict[str, dict[str, float]] = {
    "ct": {
        "skin": 75, "muscle": 112, "organ": 138, "pale": 160, "grey": 122, "white": 108,
        "fluid": 68, "bone": 242, "marrow": 205, "lung": 26, "gas": 6, "blood": 165, "gut": 90,
    },
    "mri": {
        "skin": 178, "muscle": 74, "organ": 104, "pale": 128, "grey": 132, "white": 100,
        "fluid": 216, "bone": 12, "marrow": 150, "lung": 8, "gas": 2, "blood": 40, "gut": 150,
    },
    "x ray": {  # what a shape adds to the projection where it is thickest
        "soft": 78, "air": -62, "bone": 92, "thin": 44, "rib": 26, "gap": -55, "dense": 70,
    },
    "ultrasound": {
        "tissue": 112, "soft": 88, "wall": 235, "vessel": 14, "rim": 62, "bright": 172, "fluid": 4,
    },
}  # fmt: skip

_TORSO = box("skin", 48, 50, 44, 56) + box("muscle", 48, 50, 40, 54)
_BELLY = disk("skin", 48, 49, 46, 36) + disk("muscle", 48, 49, 42, 32)
_SIDE = box("skin", 48, 50, 40, 58) + box("muscle", 48, 50, 36, 56)
_LEG = box("skin", 48, 48, 30, 70) + box("muscle", 48, 48, 26, 70)

SLICES: dict[tuple[str, str], View] = {  # (plane, organ) -> view, shared by ct and mri
    ("axial", "brain"): view(
        disk("skin", 48, 48, 40, 46), disk("bone", 48, 48, 37, 43), disk("fluid", 48, 48, 32, 38),
        disk("grey", 48, 48, 30.5, 36.5), pair(disk("white", 34, 50, 10, 25)),
        box("fluid", 48, 48, 0.8, 35), pair(disk("fluid", 42.5, 40, 3.2, 9)),
        pair(disk("fluid", 41, 59, 3, 7)), disk("grey", 48, 50, 5, 6),
        left=(32, 48, 12, 25),
    ),
    ("coronal", "brain"): view(
        box("skin", 48, 86, 19, 20), box("muscle", 48, 86, 16, 20),
        disk("skin", 48, 42, 44, 40), disk("bone", 48, 42, 41, 37), disk("fluid", 48, 42, 36, 32),
        disk("grey", 48, 42, 34.5, 30.5), pair(disk("white", 33, 40, 11, 17)),
        box("fluid", 48, 26, 0.8, 13), pair(disk("fluid", 42, 37, 3, 7)),
        pair(disk("pale", 38, 66, 12, 7)), box("pale", 48, 72, 4.5, 18),
        left=(28, 42, 12, 18),
    ),
    ("sagittal", "brain"): view(
        box("skin", 62, 84, 17, 24), box("muscle", 62, 84, 14, 24), disk("skin", 24, 68, 16, 22),
        disk("muscle", 26, 68, 13, 18), disk("skin", 10, 62, 5, 6), disk("gas", 22, 62, 6, 4),
        disk("skin", 49, 40, 42, 37), disk("bone", 49, 40, 39, 34), disk("fluid", 49, 40, 34, 29),
        disk("grey", 49, 40, 32.5, 27.5), ring("white", 49, 46, 17, 13),
        disk("fluid", 49, 46, 13, 5), disk("pale", 69, 60, 9, 8), box("pale", 56, 70, 4, 20),
        column("bone", 66, 84, 100, 4),
        left=(31, 38, 10, 17), right=(66, 36, 10, 15),
    ),
    ("axial", "lung"): view(
        disk("skin", 48, 50, 46, 38), disk("muscle", 48, 50, 43, 35), ring("bone", 48, 50, 39, 31),
        pair(disk("lung", 27, 48, 16, 25)), disk("organ", 51, 44, 12, 14),
        disk("blood", 46, 40, 4, 4), box("bone", 48, 18, 6, 2), disk("bone", 48, 68, 8, 6),
        box("bone", 48, 77, 2, 6), disk("fluid", 48, 73, 3, 2),
        left=(27, 48, 11, 19),
    ),
    ("coronal", "lung"): view(
        box("skin", 48, 4, 11, 12), _TORSO, pair(disk("bone", 9, 22, 6, 8)),
        column("bone", 48, 4, 40, 5), pair(disk("lung", 28, 44, 16, 32)),
        disk("organ", 54, 58, 13, 15), box("blood", 50, 36, 4, 12), disk("organ", 28, 86, 22, 13),
        disk("pale", 74, 86, 15, 11), pair(column("bone", 9, 34, 84, 2.5)),
        left=(28, 44, 11, 24),
    ),
    ("sagittal", "lung"): view(
        _SIDE, disk("lung", 44, 44, 24, 36), disk("organ", 34, 58, 11, 13),
        disk("organ", 44, 88, 27, 15), column("bone", 76, 4, 100, 5), box("bone", 15, 38, 2, 22),
        left=(33, 38, 10, 20), right=(60, 44, 8, 22),
    ),
    ("axial", "heart"): view(
        disk("skin", 48, 48, 47, 44), disk("muscle", 48, 48, 45, 42),
        pair(disk("lung", 18, 50, 15, 30)), disk("organ", 48, 46, 31, 29),
        disk("blood", 36, 36, 9, 9), disk("blood", 60, 36, 9, 9), disk("blood", 36, 57, 8, 8),
        disk("blood", 61, 57, 10, 9), disk("bone", 48, 83, 9, 6),
        left=(31, 47, 10, 20),
    ),
    ("axial", "liver"): view(
        _BELLY, ring("bone", 48, 49, 41, 31), disk("organ", 32, 47, 25, 25),
        disk("organ", 56, 38, 18, 11), pair(disk("white", 36, 46, 3, 8)),
        disk("pale", 74, 54, 10, 16),
        disk("blood", 53, 60, 4, 4), disk("bone", 48, 70, 8, 7), box("bone", 48, 79, 2, 5),
        left=(28, 47, 13, 18), right=(69, 48, 10, 17),
    ),
    ("coronal", "liver"): view(
        _TORSO, pair(disk("lung", 29, 6, 17, 12)), disk("organ", 33, 36, 26, 21),
        disk("organ", 52, 27, 18, 9), disk("white", 30, 38, 8, 3), disk("pale", 76, 38, 9, 17),
        column("bone", 48, 52, 100, 6), pair(disk("gut", 24, 76, 12, 11)),
        left=(29, 38, 13, 16), right=(70, 40, 10, 17),
    ),
    ("axial", "kidney"): view(
        _BELLY, pair(disk("gut", 32, 32, 10, 8)), disk("gut", 48, 28, 8, 6),
        pair(disk("skin", 26, 58, 17, 17)), pair(disk("pale", 26, 58, 14, 14)),
        pair(disk("fluid", 32, 57, 6, 4)), disk("bone", 48, 66, 9, 8), disk("blood", 50, 52, 4, 4),
        box("bone", 48, 77, 2, 6),
        left=(27, 52, 10, 19),
    ),
    ("coronal", "kidney"): view(
        _TORSO, column("bone", 48, 4, 100, 6), pair(disk("muscle", 36, 76, 6, 22)),
        pair(disk("skin", 24, 46, 16, 29)), pair(disk("pale", 24, 46, 13, 25)),
        pair(disk("fluid", 30, 46, 5, 11)),
        left=(24, 46, 9, 24),
    ),
    ("axial", "bladder"): view(
        _BELLY, pair(disk("bone", 13, 50, 7, 10)), disk("fluid", 48, 42, 24, 19),
        disk("organ", 48, 66, 10, 7), disk("gas", 48, 77, 5, 3), pair(disk("white", 28, 72, 13, 6)),
        left=(31, 46, 10, 20),
    ),
    ("sagittal", "bladder"): view(
        _SIDE, disk("gut", 40, 16, 20, 13), disk("fluid", 42, 52, 22, 19),
        disk("organ", 46, 80, 10, 9), disk("bone", 19, 74, 6, 10), column("bone", 76, 4, 60, 6),
        disk("bone", 74, 66, 6, 8), disk("bone", 68, 80, 5, 6),
        left=(33, 48, 9, 24), right=(60, 48, 8, 24),
    ),
    ("axial", "pelvis"): view(
        _BELLY, pair(box("bone", 12, 46, 4, 19)), pair(disk("bone", 17, 62, 6, 8)),
        disk("bone", 48, 70, 17, 8), pair(disk("white", 28, 74, 12, 6)),
        pair(disk("gut", 36, 36, 9, 9)), disk("gut", 48, 50, 9, 7),
        left=(32, 46, 9, 18),
    ),
    ("coronal", "pelvis"): view(
        _TORSO, column("bone", 48, 4, 32, 6), pair(disk("bone", 21, 32, 16, 20)),
        pair(disk("muscle", 25, 24, 14, 17)), disk("bone", 48, 40, 9, 15),
        pair(disk("bone", 20, 64, 9, 9)), pair(box("bone", 12, 84, 5, 20)),
        disk("gut", 48, 64, 13, 9), box("bone", 48, 82, 11, 3),
        left=(33, 50, 9, 28),
    ),
    ("coronal", "knee"): view(
        _LEG, box("bone", 48, 10, 11, 32), pair(disk("bone", 39, 40, 12, 11)),
        box("marrow", 48, 8, 8, 31), pair(disk("marrow", 39, 39, 9, 8)),
        box("fluid", 48, 52, 21, 1.6), box("bone", 48, 60, 21, 8), box("bone", 48, 84, 10, 24),
        box("marrow", 48, 60, 18, 5), box("marrow", 48, 84, 7, 23), box("bone", 72, 84, 4, 18),
        left=(37, 46, 8, 34),
    ),
    ("sagittal", "knee"): view(
        _LEG, box("bone", 54, 10, 9, 32), disk("bone", 51, 40, 15, 12), box("marrow", 54, 9, 6, 31),
        disk("marrow", 51, 40, 12, 9), box("fluid", 50, 53, 16, 1.6), box("bone", 50, 62, 15, 8),
        box("bone", 54, 86, 8, 24), box("marrow", 50, 62, 12, 5), box("marrow", 54, 86, 5, 23),
        disk("bone", 28, 38, 5, 10), disk("marrow", 28, 38, 2.5, 7), box("white", 29, 60, 2, 12),
        left=(38, 46, 7, 34), right=(62, 46, 8, 34),
    ),
}  # fmt: skip

_RIBS = tuple(s for y in range(14, 80, 10) for s in pair(ring("rib", 27, y + 7, 21, 9)))

PROJECTIONS: dict[str, View] = {  # organ -> x ray from the front
    "lung": view(
        box("soft", 48, 56, 45, 60), pair(box("air", 27, 48, 16, 34)),
        disk("dense", 55, 60, 16, 17), box("thin", 48, 48, 5, 60),
        _RIBS, pair(box("thin", 25, 11, 20, 2)), box("dense", 48, 92, 44, 10),
        left=(27, 46, 11, 24),
    ),
    "pelvis": view(
        box("soft", 48, 50, 48, 60), column("thin", 48, 4, 34, 7),
        pair(ring("bone", 23, 34, 19, 22)), pair(disk("thin", 23, 34, 18, 21)),
        box("bone", 48, 42, 9, 15), pair(disk("bone", 18, 66, 9, 9)),
        pair(box("bone", 11, 84, 6, 22)), pair(ring("bone", 36, 76, 11, 10)),
        left=(33, 50, 10, 28),
    ),
    "knee": view(
        box("soft", 48, 48, 34, 70), box("bone", 48, 10, 12, 34),
        pair(disk("thin", 38, 41, 13, 11)), box("thin", 48, 42, 20, 8), box("gap", 48, 53, 23, 2),
        box("thin", 48, 62, 22, 8), box("bone", 46, 84, 11, 26), box("thin", 70, 84, 5, 20),
        left=(37, 46, 8, 34),
    ),
}  # fmt: skip

ECHOES: dict[str, View] = {  # organ -> ultrasound image; the probe is at the top
    "liver": view(
        box("tissue", 48, 48, 60, 60), ring("wall", 46, 34, 46, 46), disk("vessel", 40, 40, 4, 2.5),
        disk("vessel", 58, 54, 5, 2.5), disk("vessel", 46, 64, 3, 2),
        left=(32, 52, 11, 17),
    ),
    "kidney": view(
        box("soft", 48, 48, 60, 60), disk("wall", 48, 50, 32, 21), disk("rim", 48, 50, 30, 19),
        disk("bright", 48, 50, 18, 6),
        left=(31, 50, 11, 14),
    ),
    "bladder": view(
        box("soft", 48, 48, 60, 60), box("bright", 48, 74, 24, 7), disk("wall", 48, 48, 29, 22),
        disk("fluid", 48, 48, 27, 20),
        left=(34, 50, 9, 14),
    ),
    "heart": view(
        box("soft", 48, 48, 60, 60), disk("wall", 48, 54, 31, 34), disk("tissue", 48, 54, 29, 32),
        disk("fluid", 37, 42, 8, 11), disk("fluid", 59, 42, 8, 11), disk("fluid", 37, 68, 7.5, 8),
        disk("fluid", 59, 68, 7.5, 8),
        left=(35, 52, 10, 20),
    ),
}  # fmt: skip


def view_of(modality: str, plane: str, organ: str) -> View:
    """The view for a modality, plane and organ; ``plane`` is "" for modalities without planes."""
    if modality == "x ray":
        return PROJECTIONS[organ]
    if modality == "ultrasound":
        return ECHOES[organ]
    return SLICES[plane, organ]


def organs_of(modality: str, plane: str) -> tuple[str, ...]:
    """Organs that can be drawn in a modality and plane."""
    if modality == "x ray":
        return tuple(PROJECTIONS)
    if modality == "ultrasound":
        return tuple(ECHOES)
    return tuple(organ for where, organ in SLICES if where == plane)
