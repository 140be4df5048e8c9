"""Scores over repeated splits of one dataset."""

import math

import numpy as np
import pytest

from study.statistics.repeated_splits import over_splits
from tests.benchmarks.splits import SMALL, Dataset, measure


def test_it_is_the_corrected_resampled_t_test() -> None:
    found = over_splits(np.array([1.0, 2.0, 6.0]), 0.25)
    # The mean is 3, the variance 7; 1/3 + 1/4 of it is that of the mean; t of 2 degrees is 4.303.
    reach = 4.302653 * math.sqrt(7 * (1 / 3 + 1 / 4))
    assert found.estimate.mean == pytest.approx(3)
    assert found.estimate.high - found.estimate.low == pytest.approx(2 * reach, rel=1e-5)
    t = 3 / math.sqrt(7 * (1 / 3 + 1 / 4))
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9), "t of 2 degrees"
    assert found.own_share == pytest.approx((1 / 3) / (1 / 3 + 1 / 4))


def test_splits_that_are_all_alike_and_ends_that_cannot_be() -> None:
    assert over_splits(np.array([2.0, 2.0, 2.0]), 0.3).p == 0
    assert over_splits(np.zeros(3), 0.3).p == 1
    wide = over_splits(np.array([1.0, 50.0, 99.0]), 0.3, least=0.0, most=100.0).estimate
    assert (wide.low, wide.high) == (0.0, 100.0)


def test_it_is_wide_enough_where_training_images_bring_no_luck() -> None:
    """A quick version of ``python -m tests.benchmarks.splits``."""
    found, _ = measure(Dataset(name="quick", world=SMALL, of_search=2.0), 5, 60)
    covers, false, _ = found["corrected"]
    assert covers > 88 and false < 12
    assert found["plain"][2] < 0.75 * found["corrected"][2]
