"""Draws on which groups of questions the two best arms differ."""

from __future__ import annotations

from markupsafe import Markup

from study.analysis.result_types import StudyResults
from study.reporting.figures import BOTTOM, RIGHT, ROW, TOP, WIDE, axis_by, draw_row
from study.reporting.svg import Figure, Scale, beside, spanning


def groups(results: StudyResults) -> list[Markup]:
    """Difference of the two best arms with its interval, a row for each group of questions; of the
    arm against which all are compared and the best other one, if there is such an arm."""
    found = results.strata.groups if results.strata else ()
    rows = [(group, group.pairs[0]) for group in found if group.pairs]
    if not rows:
        return []
    names = [f"{g.field.replace('_', ' ')}: {g.value[:30]} ({g.questions:,})" for g, _ in rows]
    read = axis_by([(pair.difference, False) for _, pair in rows])
    ends = [end for difference in read for end in (difference.low, difference.high)]
    left, height = beside(names), TOP + ROW * len(rows) + BOTTOM
    x = spanning([*ends, 0.0], left, WIDE - RIGHT)
    assert x is not None
    y = Scale(low=len(rows) - 0.5, high=-0.5, start=height - BOTTOM, end=TOP)
    first, second = rows[0][1].first, rows[0][1].second
    figure = Figure(title="Differences by question", width=WIDE, height=height, x=x, y=y)
    figure.axes(f"{first} \u2212 {second}, points", "", y_ticks=False)
    figure.rule((x(0), y.start), (x(0), y.end), kind="axis")
    number = results.arm_numbers[first]
    for row, (name, (_, pair)) in enumerate(zip(names, rows, strict=True)):
        d = pair.difference
        figure.text((left - 10, y(row) + 4), name, kind="name", anchor="end")
        tip = f"{name}: {d.mean:.1f} ({d.low:.1f} to {d.high:.1f}), Holm p = {pair.p_holm:.3g}"
        draw_row(figure, row, d, arm=number, tip=tip, hollow=pair.p_holm >= 0.05)
    return [figure.svg()]
