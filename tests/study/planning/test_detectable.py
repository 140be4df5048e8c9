"""What a study can show before it runs: against closed forms, and against made-up studies."""

import re
from dataclasses import replace

import numpy as np
import pytest

from study.planning.detectable import DISAGREE, OF_SEEDS, StudySize
from study.statistics.power import smallest_difference, smallest_margin
from study.statistics.repeated_splits import over_splits
from trainables.data.common.splits import TESTED_PER_TRAINED

SLAKE = StudySize(questions=1061, images=96, arms=2, seeds=3)


def test_with_many_seeds_it_is_the_formula_of_paired_shares() -> None:
    many = StudySize(questions=1000, images=1000, arms=2, seeds=10**6)
    sd = 100 * (DISAGREE / 1000) ** 0.5
    assert smallest_difference(many.components) == pytest.approx((1.96 + 0.842) * sd, rel=0.01)
    assert smallest_margin(many.components) == pytest.approx((1.96 + 1.282) * sd, rel=0.01)


def test_a_difference_of_that_size_is_shown_in_four_studies_of_five() -> None:
    """Differences drawn with the supposed variances, judged by Student's t of their own."""
    drawn, known = np.random.default_rng(0), SLAKE.components
    least = smallest_difference(known)
    of_images = np.sqrt(known.images / known.count_C) * 100
    seeds_RAS = OF_SEEDS * drawn.standard_normal((4000, 2, 3))
    found = least + of_images * drawn.standard_normal(4000)
    found += seeds_RAS[:, 0].mean(1) - seeds_RAS[:, 1].mean(1)
    variance = of_images**2 + seeds_RAS.var(axis=2, ddof=1).sum(axis=1) / 3
    free = known.freedom(3, 96)
    from scipy.stats import t

    shown = np.abs(found) > t.ppf(0.975, free) * np.sqrt(variance)
    assert 0.75 < shown.mean() < 0.87


def test_more_arms_show_less_and_one_seed_nothing() -> None:
    def least(text: str) -> float:
        found = re.search(r"from ([\d.]+) points", text)
        assert found is not None
        return float(found[1])

    two, twelve = SLAKE.text, StudySize(questions=1061, images=96, arms=12, seeds=3).text
    assert least(two) < least(twelve)
    times = re.search(r"halved by (\d+) seeds with (\d) times the questions", two)
    assert times is not None and int(times[1]) == 3 * int(times[2])
    alone = StudySize(questions=1061, images=96, arms=2, seeds=1).text
    assert alone.startswith("no difference") and "--seeds 3" in alone
    methods = StudySize(questions=1061, images=96, arms=2, seeds=1, searches=3).text
    assert least(methods) > least(two) and "searches" in methods


def test_an_interval_over_splits_leaves_zero_out_in_four_studies_of_five() -> None:
    """Differences of splits that go together as test sets share questions, judged as they are."""
    drawn, ratio, splits = np.random.default_rng(0), TESTED_PER_TRAINED, 5
    size = replace(SLAKE, splits=splits)
    found = re.search(r"difference of ([\d.]+) points .* and of ([\d.]+) with 10", size.text)
    assert found is not None
    least, of_ten = map(float, found.groups())
    assert least > of_ten and "splits, beside that, by 2.5 points" in size.supposing
    assert "with 10" not in replace(size, splits=12).text
    known = size.components
    sd = 100 * (known.images / known.count_C + sum(known.seeds)) ** 0.5
    shared = ratio / (1 + ratio)  # the correlation with which the corrected variance is right
    apart_RK = least + sd * (shared**0.5 * drawn.standard_normal((2000, 1)))
    apart_RK = apart_RK + sd * (1 - shared) ** 0.5 * drawn.standard_normal((2000, splits))
    shown = [over_splits(apart_K, ratio).estimate.low > 0 for apart_K in apart_RK]
    assert 0.75 < np.mean(shown) < 0.85


def test_comparisons_with_one_arm_alone_show_smaller_differences() -> None:
    every = StudySize(questions=1061, images=96, arms=12, seeds=3)
    one = StudySize(questions=1061, images=96, arms=12, seeds=3, against=True)
    assert (every.tests, one.tests) == (66, 11)
    assert smallest_difference(one.components, one.tests) < smallest_difference(
        every.components, every.tests
    )
    assert StudySize(questions=9, images=9, arms=1, seeds=3, against=True).tests == 1
