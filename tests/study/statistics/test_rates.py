"""Rates of few seeds, against SciPy's own and the closed form."""

import pytest
from scipy.stats import binomtest

from study.statistics.rates import exact_rate


def test_no_collapse_of_three_says_little() -> None:
    assert exact_rate(0, 3).high == pytest.approx(100 * (1 - 0.05 ** (1 / 3)))  # 63%
    assert exact_rate(0, 3).low == 0
    assert (exact_rate(2, 2).low, exact_rate(2, 2).high) == pytest.approx((100 * 0.05**0.5, 100))
    theirs = binomtest(2, 9).proportion_ci(0.95, "exact")
    ours = exact_rate(2, 9)
    assert (ours.low, ours.high) == pytest.approx((100 * theirs.low, 100 * theirs.high))
