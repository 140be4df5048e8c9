"""Computes how many more seeds or questions would be needed to tell two arms apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from study.statistics.uncertainty import LEVEL
from study.statistics.variance_components import VarianceComponents

POWER = 0.8
"""Probability that a true difference is shown, with as much data as is said to be needed."""
MOST_SEEDS, MOST_TIMES = 200, 100
"""Most seeds of an arm, and most times the present images; more is as good as never."""


def seeds_needed(components: VarianceComponents, points: float, tests: int = 1) -> int | None:
    """Seeds of each arm that would show a true difference of ``points`` percentage points on the
    same images; None if even ``MOST_SEEDS`` are too few.

    ``tests`` is the number of tests that are corrected for, by the smallest level of Holm's method.
    """

    def tells(seeds: int) -> bool:
        return _tells(components, seeds, components.count_C, points, tests)

    return _fewest(tells, components.count_S + 1, MOST_SEEDS)


def images_needed(components: VarianceComponents, points: float, tests: int = 1) -> int | None:
    """Images that would show a true difference of ``points`` percentage points with the same seeds;
    None if ``MOST_TIMES`` as many are too few.

    ``tests`` is the number of tests that are corrected for, by the smallest level of Holm's method.
    """

    def tells(images: int) -> bool:
        return _tells(components, components.count_S, images, points, tests)

    return _fewest(tells, components.count_C + 1, components.count_C * MOST_TIMES)


def range_of(
    needed: Callable[[VarianceComponents], int | None], components: VarianceComponents
) -> tuple[int | None, int | None]:
    """The middle 80% of what ``needed`` may give, since the variance is itself known no better than
    its degrees of freedom allow (by the quantiles of chi-square)."""
    from scipy.stats import chi2

    free = min(components.freedom(components.count_S, components.count_C), 1e9)
    small, large = (free / chi2.ppf(share, free) for share in (0.9, 0.1))
    return needed(components.scaled(small)), needed(components.scaled(large))


def smallest_difference(components: VarianceComponents, tests: int = 1) -> float:
    """True difference, in percentage points, that is shown in a share ``POWER`` of all studies of
    this size, corrected for ``tests`` tests."""
    level = 1 - (100 - LEVEL) / 200 / tests
    return 100 * _shown(components, components.count_S, components.count_C, level, POWER)


def smallest_margin(components: VarianceComponents) -> float:
    """Margin, in percentage points, within which two equal arms are shown to be as good as each
    other in a share ``POWER`` of all studies of this size: both ends of an interval must be inside
    (two one-sided tests; Chow, Shao and Wang, section 3.2.3)."""
    level, power = 1 - (100 - LEVEL) / 200, 1 - (1 - POWER) / 2
    return 100 * _shown(components, components.count_S, components.count_C, level, power)


def _fewest(tells: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from ``low`` to ``high`` that tells; None if ``high`` does not. If a
    number tells, all larger ones do."""
    if not tells(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle + 1, high)
    return low


def _tells(
    components: VarianceComponents, seeds: int, images: int, points: float, tests: int
) -> bool:
    """Whether the difference is shown in a share ``POWER`` of all studies."""
    return _shown(components, seeds, images, 1 - (100 - LEVEL) / 200 / tests, POWER) <= points / 100


def _shown(
    components: VarianceComponents, seeds: int, images: int, level: float, power: float
) -> float:
    """Difference, as a fraction, that a test at the one-sided ``level`` shows in a share ``power``
    of all studies, by quantiles of Student's t (Chow, Shao and Wang 2008, *Sample Size Calculations
    in Clinical Research*, section 3.2)."""
    from scipy.special import stdtrit

    free = min(components.freedom(seeds, images), 1e9)
    far = float(stdtrit(free, level) + stdtrit(free, power))
    known = far * float(np.sqrt(components.variance(seeds, images)))
    return known + components.unseen(images)
