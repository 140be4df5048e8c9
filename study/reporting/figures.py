"""Draws the figures of the report that compare arms, from a study's results alone.

A figure is a list of panels, each an SVG; an empty list means that there is nothing to draw. An arm
has the same number, and with it the same colour and shape, in all figures.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Protocol

from markupsafe import Markup

from study.analysis.efficiency_types import COSTS
from study.analysis.result_types import ArmResult, StudyResults
from study.reporting.svg import THIN, Figure, Scale, beside, spanning
from study.statistics.score_types import ArmPair, Baselines, Estimate, Finding

PANEL_WIDTH, PANEL_HEIGHT = 340, 250
PANEL_BROAD = 500
"""Width of a panel in pixels, of which two stand side by side."""
WIDE = 1020
"""Width of three panels in pixels, for figures of one panel: letters are equally large then."""
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 28, 44
"""Margins of a panel in pixels, for labels."""
PAIRS = 6
"""Pairs of arms whose differences are drawn at most: those of four arms."""
ROW = 30
"""Height in pixels of a row with an interval."""
WIDER, NARROW = 3, 10.0
"""An interval stretches no axis if it is wider than ``NARROW`` points and ``WIDER`` times the
middle one."""


class Drawn(Protocol):
    """What figures of scores and differences are drawn from: the results of a study, or of several
    that are compared."""

    @property
    def shown(self) -> Mapping[str, str]:
        """Column of a measure -> its title."""

    @property
    def arms(self) -> tuple[ArmResult, ...]:
        """All arms, the best first."""

    @property
    def comparisons(self) -> tuple[ArmPair, ...]:
        """Comparison of each pair of confirmed arms."""

    @property
    def baselines(self) -> Baselines:
        """Scores of models that no arm tuned."""

    @property
    def decides(self) -> str:
        """Column of the measure by which arms are compared."""

    @property
    def leader(self) -> Estimate | None:
        """Score of the best arm with the choice in it."""

    @property
    def arm_numbers(self) -> dict[str, int]:
        """Name of an arm -> the number by which it has its colour."""


def legend(results: Drawn) -> list[tuple[int, str, Markup]]:
    """Number, name and shape of each arm."""
    flat = Scale(low=0, high=1, start=0, end=16)
    found = []
    for name, i in results.arm_numbers.items():
        figure = Figure(title=name, width=16, height=16, x=flat, y=flat)
        figure.mark((0.5, 0.5), arm=i, tip="")
        found.append((i, name, figure.svg()))
    return found


def has_long_names(results: Drawn) -> bool:
    """Whether arms' names would take most of a panel."""
    return beside(arm.arm for arm in results.arms if arm.test) > PANEL_WIDTH / 2


def scores(results: Drawn, width: float = 0.0) -> list[Markup]:
    """Test accuracy of each arm with interval, seeds and baselines; a panel for each part, of
    ``width`` pixels (0: wider ones where names are long)."""
    drawn, index = [], results.arm_numbers
    width = width or (PANEL_BROAD if has_long_names(results) else PANEL_WIDTH)
    for part, name_of_part in results.shown.items():
        rows = [
            (index[arm.arm], arm, score)
            for arm in results.arms
            if arm.test and (score := arm.test[part].interval) is not None
        ]
        named = results.baselines.named()
        bases = {name: named[name][part] for name in ("majority", "untuned") if name in named}
        seeds = [
            seed.scores.get(part) for _, arm, _ in rows if not arm.collapsed for seed in arm.seeds
        ]
        read = axis_by([(score, arm.collapsed) for _, arm, score in rows])
        ends = [end for score in read for end in (score.low, score.high)]
        if part == results.decides and results.leader:
            ends += [results.leader.low, results.leader.high]
        left = beside(arm.arm for _, arm, _ in rows)
        height = TOP + ROW * len(rows) + BOTTOM + 14
        x = spanning([*ends, *seeds, *bases.values()], left, width - RIGHT)
        if x is None or not rows:
            continue
        y = Scale(low=len(rows) - 0.5, high=-0.5, start=height - BOTTOM, end=TOP + 14)
        title = f"On test, {name_of_part}"
        figure = Figure(title=title, width=width, height=height, x=x, y=y)
        figure.axes(name_of_part, "", y_ticks=False)
        figure.text((0, 14), part, kind="head")
        lowest_first = sorted((value, name) for name, value in bases.items() if value is not None)
        for place, (value, name) in enumerate(lowest_first):
            figure.rule((x(value), y.start), (x(value), y.end - 2), kind="base")
            # Names of close baselines stand side by side.
            anchor = "end" if place == 0 and len(lowest_first) > 1 else "start"
            figure.text((x(value), y.end - 6), name, kind="tick", anchor=anchor)
        for row, (i, arm, score) in enumerate(rows):
            tip = f"{arm.arm}, {part}: {_interval(score)}"
            figure.text((left - 10, y(row) + 4), arm.arm, kind="name", anchor="end")
            for seed in arm.seeds:
                of_seed = seed.scores.get(part)
                if of_seed is not None and of_seed == x.within(of_seed):
                    at = x(of_seed)
                    figure.path([(at, y(row) + 6), (at, y(row) + 11)], arm=i, kind="line thin")
            draw_row(figure, row, score, arm=i, tip=tip)
            if part == results.decides and arm is results.arms[0] and (best := results.leader):
                tip = f"{arm.arm} as the best of {len(rows)}: {_interval(best)}"
                under = row - 0.28
                figure.whisker((best.low, under), (best.high, under), arm=i, kind="thin", tip=tip)
                figure.mark((best.mean, under), arm=i, tip=tip, hollow=True)
        drawn.append(figure.svg())
    return drawn


def differences(results: Drawn) -> list[Markup]:
    """Difference in overall accuracy of each pair of arms with its interval, and the margin; of the
    best arm and each other where there are more than ``PAIRS``, unless one arm is in all."""
    each = [{pair.first, pair.second} for pair in results.comparisons]
    few = len(each) <= PAIRS or set.intersection(*each)
    best = None if few else results.arms[0].arm
    pairs = [
        (pair.first, pair.second, pair.deciding)
        for pair in results.comparisons
        if best in (None, pair.first)
    ]
    index = results.arm_numbers
    if not pairs:
        return []
    margin = pairs[0][2].margin
    lost = {arm.arm for arm in results.arms if arm.collapsed}
    read = axis_by([(c.difference, not lost.isdisjoint((a, b))) for a, b, c in pairs])
    ends = [end for difference in read for end in (difference.low, difference.high)]
    left = beside(f"{first} - {second}" for first, second, _ in pairs)
    width, height = WIDE, TOP + ROW * len(pairs) + BOTTOM
    x = spanning([*ends, -1.5 * margin, 1.5 * margin], left, width - RIGHT)
    assert x is not None
    y = Scale(low=len(pairs) - 0.5, high=-0.5, start=height - BOTTOM, end=TOP)
    figure = Figure(title="Differences between arms", width=width, height=height, x=x, y=y)
    figure.area((x(-margin), y.start), (x(margin), y.end), kind="within")
    figure.axes("difference in accuracy, points (shaded: the margin)", "", y_ticks=False)
    figure.rule((x(0), y.start), (x(0), y.end), kind="axis")
    for row, (first, second, c) in enumerate(pairs):
        figure.text((left - 10, y(row) + 4), f"{first} \u2212 {second}", kind="name", anchor="end")
        d = c.difference
        tip = f"{first} minus {second}: {_interval(d)}, Holm p = {c.p_holm:.3g}"
        hollow = c.finding is not Finding.BETTER
        draw_row(figure, row, d, arm=index[first], tip=tip, hollow=hollow)
    return [figure.svg()]


def pareto(results: StudyResults) -> list[Markup]:
    """Test accuracy against cost, with the Pareto front as a step line; a panel for each cost."""
    index = results.arm_numbers
    arms = [(index[arm.arm], arm) for arm in results.confirmed]
    drawn = []
    # An adapter's size follows from its parameters: it would be the same picture twice.
    for cost, label in COSTS.items():
        if cost == "adapter_mib":
            continue
        points = [(i, arm, arm.costs[cost]) for i, arm in arms]
        x = x_scale([v for _, _, v in points], log=far_apart([v for _, _, v in points]))
        read = axis_by([(arm.overall, arm.collapsed) for _, arm in arms])
        ends = [end for score in read for end in (score.low, score.high)]
        y = y_scale([*ends, *(arm.overall.mean for _, arm in arms)])
        if x is None or y is None:
            continue
        figure = panel(f"Accuracy against {label}", x, y)
        figure.axes(label, "test accuracy, %")
        front = set(results.efficiency.pareto[cost])
        steps = sorted((v, arm.overall.mean) for _, arm, v in points if arm.arm in front)
        pixels = []
        for (value, mean), (later, _) in zip(steps, [*steps[1:], (x.high, 0.0)], strict=True):
            pixels += [(x(value), y(mean)), (x(later), y(mean))]
        for start, end in itertools.pairwise(pixels):
            figure.rule(start, end, kind="front")
        for i, arm, value in points:
            score = arm.overall
            tip = f"{arm.arm}: {_interval(score)} for {value:,.4g} {label}"
            figure.whisker((value, score.low), (value, score.high), arm=i, kind="thin")
            figure.mark((value, score.mean), arm=i, tip=tip, hollow=arm.arm not in front)
        drawn.append(figure.svg())
    return drawn


def budget(results: StudyResults) -> list[Markup]:
    """Validation accuracy that a search is expected to end with, against what it may spend."""
    found = results.efficiency.budget
    curves = {arm: curve for arm, curve in (found.arms if found else {}).items() if curve}
    width, height = WIDE, 320
    seconds = [p.seconds for curve in curves.values() for p in curve]
    x = spanning(seconds, LEFT, width - RIGHT, log=True, room=0.03)
    ends = [end for curve in curves.values() for p in curve for end in (p.low, p.high)]
    y = spanning(ends, height - BOTTOM, TOP)
    if x is None or y is None:
        return []
    title = "Expected validation accuracy against search budget"
    figure = Figure(title=title, width=width, height=height, x=x, y=y)
    figure.axes("search budget of the arm, device-seconds", "validation accuracy, %")
    index = results.arm_numbers
    for arm, curve in curves.items():
        upper = [(x(p.seconds), y(p.high)) for p in curve]
        lower = [(x(p.seconds), y(p.low)) for p in reversed(curve)]
        figure.path([*upper, *lower], arm=index[arm], kind="band")
    for arm, curve in curves.items():
        figure.line([(p.seconds, p.mean) for p in curve], arm=index[arm])
        for p in curve:
            tip = f"{arm}: {p.mean:.1f}% ({p.low:.1f} to {p.high:.1f}) for "
            figure.mark(
                (p.seconds, p.mean),
                arm=index[arm],
                tip=f"{tip}{p.seconds:,.0f} device-seconds",
                size=3,
            )
    return [figure.svg()]


def panel(title: str, x: Scale, y: Scale) -> Figure:
    """An empty panel."""
    return Figure(title=title, width=PANEL_WIDTH, height=PANEL_HEIGHT, x=x, y=y)


def x_scale(values: Sequence[float], *, log: bool) -> Scale | None:
    """The horizontal scale of a panel for these values; None if there are no values."""
    return spanning(values, LEFT, PANEL_WIDTH - RIGHT, log=log)


def y_scale(values: Sequence[float | None], *, loss: bool = False) -> Scale | None:
    """The vertical scale of a panel for these values, logarithmic for losses that are far apart;
    None if there are no values."""
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    return spanning(numbers, PANEL_HEIGHT - BOTTOM, TOP, log=loss and far_apart(numbers))


def far_apart(values: Sequence[float]) -> bool:
    """Whether values span so much that a linear scale would show only the largest of them."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 3


def axis_by(intervals: Sequence[tuple[Estimate, bool]]) -> list[Estimate]:
    """The intervals that an axis has to hold: an arm that collapsed would stretch it until nothing
    else could be read.

    Args:
        intervals: intervals in points, each with whether an arm of it collapsed. They count only if
            none of the others can be drawn.
    """
    steady = [interval for interval, collapsed in intervals if not collapsed]
    steady = steady or [interval for interval, _ in intervals]
    if not steady:
        return []
    middle = statistics.median_low(interval.high - interval.low for interval in steady)
    most = max(WIDER * middle, NARROW)
    return [interval for interval in steady if interval.high - interval.low <= most]


def draw_row(
    figure: Figure, row: int, d: Estimate, *, arm: int, tip: str, hollow: bool = False
) -> None:
    """Draw a mean and its interval in a row. What lies beyond the axis is told in numbers."""
    x, y = figure.x, figure.y
    beyond = figure.whisker((d.low, row), (d.high, row), arm=arm, tip=tip)
    if d.mean == x.within(d.mean):
        figure.mark((d.mean, row), arm=arm, tip=tip, hollow=hollow)
    if beyond:
        text = f"beyond the axis: {_interval(d)}"
        left = d.low < x.low and THIN * len(text) < x.end - x.start
        figure.text(
            (x.start + 4 if left else x.end, y(row) - 8),
            text,
            kind="tick over",
            anchor="start" if left else "end",
        )


def _interval(score: Estimate) -> str:
    """A mean with its interval, as text."""
    return f"{score.mean:.1f} ({score.low:.1f} to {score.high:.1f})"
