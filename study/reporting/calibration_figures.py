"""Draws how the arms' confidence in closed answers compares with their accuracy."""

from __future__ import annotations

import math

from markupsafe import Markup

from study.analysis.result_types import StudyResults
from study.reporting.figures import BOTTOM, LEFT, PANEL_HEIGHT, PANEL_WIDTH, RIGHT, TOP
from study.reporting.svg import Figure, Scale


def reliability(results: StudyResults) -> list[Markup]:
    """Accuracy against confidence of closed answers; a panel for each arm."""
    drawn, index = [], results.arm_numbers
    for arm in results.confirmed:
        if arm.calibration is None:
            continue
        x = Scale(low=0, high=100, start=LEFT, end=PANEL_WIDTH - RIGHT)
        y = Scale(low=0, high=100, start=PANEL_HEIGHT - BOTTOM, end=TOP)
        title = f"Calibration of {arm.arm}"
        figure = Figure(title=title, width=PANEL_WIDTH, height=PANEL_HEIGHT, x=x, y=y)
        figure.axes("confidence, %", "right, %")
        figure.rule((x(0), y(0)), (x(100), y(100)), kind="base")
        figure.text((0, 14), f"{arm.arm}, ECE {arm.calibration.text}", kind="head")
        most = max(each.answers for each in arm.calibration.bins)
        number = index[arm.arm]
        figure.line(
            [(each.confidence, each.accuracy) for each in arm.calibration.bins],
            arm=number,
            kind="thin",
        )
        for each in arm.calibration.bins:
            tip = (
                f"{arm.arm}: {each.accuracy:.1f}% of {each.answers:,} answers are right, "
                f"with a confidence of {each.confidence:.1f}%"
            )
            size = 2 + 5 * math.sqrt(each.answers / most)
            figure.mark((each.confidence, each.accuracy), arm=number, tip=tip, size=size)
        drawn.append(figure.svg())
    return drawn
