"""Figures can be read where one arm collapsed: its interval does not stretch their axes."""

import re
from dataclasses import replace

import pytest

from study.analysis.result_types import StudyResults
from study.reporting import figures, svg
from study.statistics.score_types import Estimate

TICK = re.compile(r'class="tick" [^>]*text-anchor="middle">(-?[\d.]+)<')


def collapsing(found: StudyResults, name: str) -> StudyResults:
    """Results in which one arm's seeds are so far apart that nothing is known of it."""
    wide = Estimate(mean=0.0, low=-100.0, high=100.0)
    arms = [
        replace(
            arm,
            collapsed=True,
            test={part: replace(score, low=0.0, high=100.0) for part, score in arm.test.items()},
        )
        if arm.arm == name and arm.test
        else arm
        for arm in found.arms
    ]
    pairs = [
        replace(pair, parts={"overall": replace(pair.deciding, difference=wide)})
        if name in (pair.first, pair.second)
        else pair
        for pair in found.comparisons
    ]
    return replace(found, arms=tuple(arms), comparisons=tuple(pairs))


def test_an_arm_that_collapsed_stretches_no_axis(found: StudyResults) -> None:
    lost = collapsing(found, "ia3")
    for draw in (figures.differences, figures.scores):
        (before, *_), (after, *_) = draw(found), draw(lost)
        others = [float(tick) for tick in TICK.findall(after)]
        assert max(others) - min(others) <= 60, draw.__name__
        assert "beyond the axis: " not in before
    (drawn,) = figures.differences(lost)
    of_lost = [pair for pair in lost.comparisons if "ia3" in (pair.first, pair.second)]
    assert drawn.count("beyond the axis: ") == len(of_lost) == 3
    assert drawn.count("beyond the axis: 0.0 (-100.0 to 100.0)</text>") == 3
    assert figures.scores(lost)[0].count("(0.0 to 100.0)</text>") == 1
    # Whatever is drawn lies within the figure.
    for x in re.findall(r'points="([^"]+)"', drawn):
        assert all(0 <= float(point.split(",")[0]) <= figures.WIDE for point in x.split())


@pytest.mark.parametrize(
    ("ends", "held"),
    [
        ([(-5, 5, False), (-100, 100, True)], [0]),
        ([(-100, 100, True), (-90, 90, True)], [0, 1]),
        ([(-5, 5, False), (-4, 4, False), (-50, 50, False)], [0, 1]),
        ([(-0.1, 0.1, False), (-0.1, 0.1, False), (-4, 4, False)], [0, 1, 2]),
        ([(-5, 5, False), (-12, 12, False)], [0, 1]),
        ([], []),
    ],
    ids=["collapsed", "all collapsed", "much wider", "narrow all", "wider", "none"],
)
def test_the_intervals_that_an_axis_holds(
    ends: list[tuple[float, float, bool]], held: list[int]
) -> None:
    each = [(Estimate(mean=0.0, low=low, high=high), lost) for low, high, lost in ends]
    assert figures.axis_by(each) == [each[place][0] for place in held]


def test_a_line_ends_at_the_axes_with_the_head_of_an_arrow() -> None:
    x = svg.Scale(low=0, high=10, start=50, end=150)
    y = svg.Scale(low=1, high=0, start=100, end=0)
    drawn = svg.Figure(title="", width=200, height=120, x=x, y=y)
    assert not drawn.whisker((2, 0.5), (8, 0.5), arm=0) and len(drawn.drawn) == 1
    assert drawn.whisker((-30, 0.5), (8, 0.5), arm=0) and len(drawn.drawn) == 3
    assert 'points="50.0,50.0 130.0,50.0"' in drawn.drawn[1]
    assert 'points="50.0,50.0 59.0,55.4 59.0,44.6"' in drawn.drawn[2]
