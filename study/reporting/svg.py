"""Draws figures as inline SVG: scales, axes and marks. The page's style sheet gives them colours.

A mark of an arm carries its class (``a0``, ``a1``, ...) and ``data-arm``, so that the page can
colour it, in light and dark, and highlight it. ``data-tip`` is the text that appears when a pointer
is over it. Every arm has a shape too, and arms whose colours the colour-blind may confuse have
different ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from study.trials.colours import COLOURS

SHAPES = ("circle", "square", "diamond", "up", "down", "cross")
"""Shapes of the arms, by number; again from the first where there are more arms."""
Point = tuple[float, float]
ARROW = 9
"""Pixels of the head of an arrow."""
LETTER, THIN = 7.6, 5.8
"""Pixels that a bold letter takes, in wide fonts, and a letter of a tick's label."""


def beside(names: Iterable[str]) -> float:
    """Pixel at which a figure's rows begin, to the right of their names."""
    return 20 + LETTER * max(map(len, names), default=0)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear or logarithmic map from values to pixels."""

    low: float
    """Value at the beginning of the scale."""
    high: float
    """Value at the end of the scale."""
    start: float
    """Pixel of ``low``."""
    end: float
    """Pixel of ``high``."""
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = (
            (math.log10(v) for v in (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def within(self, value: float) -> float:
        """The value, or the end of the scale that it lies beyond."""
        low, high = sorted((self.low, self.high))
        return min(max(value, low), high)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values on the scale; on a linear one, ``about`` so many."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            few = (1,) if math.log10(self.high / self.low) > 2 else (1, 2, 5)
            found = [m * 10.0**d for d in decades for m in few]
        else:
            rough = (self.high - self.low) / about
            size = 10 ** math.floor(math.log10(rough))
            step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough * 0.999)
            first = math.ceil(self.low / step - 1e-9)
            found = [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        edge = 1e-9 * abs(self.high - self.low)
        return [v for v in found if self.low - edge <= v <= self.high + edge]


def spanning(
    values: Iterable[float | None],
    start: float,
    end: float,
    *,
    log: bool = False,
    room: float = 0.06,
) -> Scale | None:
    """A scale with some room around all values that are numbers; None if there are none."""
    numbers = [v for v in values if v is not None and math.isfinite(v) and (v > 0 or not log)]
    if not numbers:
        return None
    low, high = min(numbers), max(numbers)
    if log:
        factor = max((high / low) ** room, 1.25)
        return Scale(low=low / factor, high=high * factor, start=start, end=end, log=True)
    margin = (high - low) * room or abs(high) * room or 1.0
    return Scale(low=low - margin, high=high + margin, start=start, end=end)


def short(value: float) -> str:
    """The label of a tick: ``12k``, ``0.05``, ``1e-4``."""
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e4:
        return f"{value / 1e3:g}k"
    if size < 1e-3:
        mantissa, exponent = f"{value:e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


@dataclass(kw_only=True)
class Figure:
    """One set of axes and what is drawn in it, from the back to the front."""

    title: str
    """Title for those who cannot see the figure."""
    width: float
    height: float
    x: Scale
    y: Scale
    drawn: list[Markup] = field(default_factory=list)

    def axes(self, x_label: str, y_label: str, *, head: str = "", y_ticks: bool = True) -> None:
        """Draw ticks, grid and labels; ``head`` stands above the axes."""
        left, right = self.x.start, self.x.end
        bottom, top = self.y.start, self.y.end
        for value in self.x.ticks(max(3, round((right - left) / 90))):
            at = self.x(value)
            self.rule((at, bottom), (at, top), kind="grid")
            self.text((at, bottom + 16), short(value), kind="tick", anchor="middle")
        for value in self.y.ticks() if y_ticks else ():
            at = self.y(value)
            self.rule((left, at), (right, at), kind="grid")
            self.text((left - 7, at + 4), short(value), kind="tick", anchor="end")
        self.rule((left, bottom), (right, bottom), kind="axis")
        self.text(((left + right) / 2, bottom + 34), x_label, kind="label", anchor="middle")
        if y_label:
            middle = (bottom + top) / 2
            self.drawn.append(
                Markup('<text class="label" text-anchor="middle" transform="{}">{}</text>').format(
                    f"translate({left - 46:.1f} {middle:.1f}) rotate(-90)", y_label
                )
            )
        if head:
            self.text((left, top - 8), head, kind="head")

    def rule(self, start: Point, end: Point, *, kind: str) -> None:
        """Draw a straight line between two pixels."""
        self.drawn.append(
            Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
                kind, *start, *end
            )
        )

    def text(self, at: Point, text: str, *, kind: str = "", anchor: str = "start") -> None:
        """Draw text at a pixel."""
        self.drawn.append(
            Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                kind, *at, anchor, text
            )
        )

    def area(self, corner: Point, opposite: Point, *, kind: str, arm: int | None = None) -> None:
        """Draw a filled rectangle between two pixels."""
        (x0, y0), (x1, y1) = corner, opposite
        self.drawn.append(
            Markup(
                '<rect class="{}" {} x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
            ).format(*_classes(arm, kind), min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
        )

    def line(self, points: Sequence[Point], *, arm: int, kind: str = "", tip: str = "") -> None:
        """Draw a line through values."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self._add("polyline", Markup('points="{}"').format(path), arm, f"line {kind}", tip)

    def whisker(
        self, start: Point, end: Point, *, arm: int, kind: str = "wide", tip: str = ""
    ) -> bool:
        """Draw a line between two values as far as the axes reach, with the head of an arrow where
        it goes on beyond them; return whether it does."""
        inside = [(self.x.within(x), self.y.within(y)) for x, y in (start, end)]
        self.line(inside, arm=arm, kind=kind, tip=tip)
        beyond = False
        for (x, y), (to_x, to_y) in zip((start, end), inside, strict=True):
            if (x, y) == (to_x, to_y):
                continue
            beyond = True
            at_x, at_y = self.x(to_x), self.y(to_y)
            # A step inwards, in pixels: y grows downwards.
            dx, dy = ARROW * ((x < to_x) - (x > to_x)), ARROW * ((y > to_y) - (y < to_y))
            head = [
                (at_x, at_y),
                (at_x + dx + 0.6 * dy, at_y + dy + 0.6 * dx),
                (at_x + dx - 0.6 * dy, at_y + dy - 0.6 * dx),
            ]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in head)
            self._add("polygon", Markup('points="{}"').format(path), arm, "mark", tip)
        return beyond

    def path(self, pixels: Sequence[Point], *, arm: int, kind: str, tip: str = "") -> None:
        """Draw a line through pixels or, with ``kind="band"``, the area that they go around."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
        shape = "polygon" if kind == "band" else "polyline"
        self._add(shape, Markup('points="{}"').format(path), arm, kind, tip)

    def mark(self, at: Point, *, arm: int, tip: str, hollow: bool = False, size: float = 5) -> None:
        """Draw an arm's shape at a value."""
        x, y = self.x(at[0]), self.y(at[1])
        kind = "mark hollow" if hollow else "mark"
        shape = SHAPES[arm % len(SHAPES)]
        if shape == "circle":
            where = Markup('cx="{:.1f}" cy="{:.1f}" r="{}"').format(x, y, size)
            return self._add("circle", where, arm, kind, tip)
        r = size * 1.15
        corners = {
            "square": ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
            "diamond": ((0, -1.15), (1.15, 0), (0, 1.15), (-1.15, 0)),
            "up": ((0, -1.1), (1.05, 0.8), (-1.05, 0.8)),
            "down": ((0, 1.1), (1.05, -0.8), (-1.05, -0.8)),
            "cross": (
                *((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4)),
                *((0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4)),
            ),
        }[shape]
        path = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners)
        return self._add("polygon", Markup('points="{}"').format(path), arm, kind, tip)

    def svg(self) -> Markup:
        """The figure as an SVG element."""
        return Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
            self.width, self.height, self.title, Markup("").join(self.drawn)
        )

    def _add(self, shape: str, where: Markup, arm: int, kind: str, tip: str) -> None:
        told = Markup(' data-tip="{}"').format(tip) if tip else ""
        self.drawn.append(
            Markup('<{} class="{}" {} {}{}/>').format(
                Markup(shape), *_classes(arm, kind), where, told
            )
        )


def _classes(arm: int | None, kind: str) -> tuple[Markup, Markup]:
    """The class of an element, with that of its arm, and the attribute ``data-arm``."""
    if arm is None:
        return escape(kind), Markup("")
    return escape(f"{kind} a{arm % len(COLOURS)}"), Markup('data-arm="{}"').format(arm)
