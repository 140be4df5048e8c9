"""Rates of few seeds, against SciPy's own and the closed form."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from study.statistics.rates import exact_rate


def test_no_collapse_of_three_says_little() -> None:
    assert exact_rate(0, 3).high == pytest.approx(100 * (1 - 0.05 ** (1 / 3)))  # 63%
    assert exact_rate(0, 3).low == 0
    assert (exact_rate(2, 2).low, exact_rate(2, 2).high) == pytest.approx((100 * 0.05**0.5, 100))
    theirs = binomtest(2, 9).proportion_ci(0.95, "exact")
    ours = exact_rate(2, 9)
    assert (ours.low, ours.high) == pytest.approx((100 * theirs.low, 100 * theirs.high))


def test_bounds_hold_whatever_the_rate_is() -> None:
    """The chance that a rate lies within the bounds of what it leads to, at the worst rate."""
    rates_P = np.linspace(0.001, 0.999, 999)
    for seeds, least in ((2, 0.95), (3, 0.95), (4, 0.95), (5, 0.925), (10, 0.925), (20, 0.925)):
        bounds = [exact_rate(events, seeds) for events in range(seeds + 1)]
        held_P = sum(
            binom.pmf(events, seeds, rates_P)
            * ((each.low <= 100 * rates_P) & (100 * rates_P <= each.high))
            for events, each in enumerate(bounds)
        )
        assert min(held_P) >= least, seeds
