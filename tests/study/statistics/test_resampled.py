"""Intervals and tests of a statistic that is computed anew in each resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from study.statistics.resampled import ResampledScores, Statistic
from study.statistics.uncertainty import Array, Scores
from tests.trainables.measures.examples import examples
from trainables.measures import balanced, likelihoods
from trainables.measures.common.measure import weighted

TRUTH = ["yes" if number % 10 < 3 else "no" for number in range(400)]
GROUPS = [f"image {number // 4}" for number in range(len(TRUTH))]


def answered(chance: float, seed: int) -> list[str]:
    """Answers that are right with a chance."""
    drawn = np.random.default_rng(seed)
    wrong = {"yes": "no", "no": "yes"}
    return [true if drawn.random() < chance else wrong[true] for true in TRUTH]


GIVEN = {
    "a": [answered(0.75, seed) for seed in range(3)],
    "b": [answered(0.65, seed) for seed in range(3, 6)],
    "again": [answered(0.75, seed) for seed in range(3)],
}


def right(given: Sequence[str]) -> list[float]:
    return [float(one == true) for one, true in zip(given, TRUTH, strict=True)]


def accuracy(several: Sequence[Sequence[str]]) -> Statistic:
    right_Q = np.concatenate([right(given) for given in several])

    def of(weights_RQ: Array) -> Array:
        found: Array = 100 * (weights_RQ @ right_Q) / weights_RQ.sum(1)
        return found

    return of


def macro_f1(several: Sequence[Sequence[str]]) -> Statistic:
    asked = examples(*(("closed", true) for true in TRUTH)) * len(several)
    return weighted(balanced.MEASURE, "macro_f1", [a for given in several for a in given], asked)


def test_two_arms_that_are_never_right_are_not_shown_to_be_alike() -> None:
    """Their wrong answers differ on every image, and none of them counts."""
    arms = {arm: [[f"{arm} {q}" for q in range(len(TRUTH))]] * 2 for arm in "ab"}
    found = ResampledScores(arms, GROUPS, macro_f1, replicates=50).difference("a", "b")
    assert found.estimate.mean == 0 and found.components.rare
    assert (found.estimate.low, found.estimate.high) == pytest.approx((-3.0, 3.0)), "of 100 images"


def test_of_a_mean_it_is_what_scores_of_means_are() -> None:
    resampled = ResampledScores(GIVEN, GROUPS, accuracy)
    plain = Scores(
        {arm: np.array([right(g) for g in given]) for arm, given in GIVEN.items()}, GROUPS
    )
    assert resampled.score("a").mean == pytest.approx(plain.score("a").mean)
    assert resampled.score("a").low == pytest.approx(plain.score("a").low, abs=1)
    one, other = (scores.difference("a", "b") for scores in (resampled, plain))
    assert one.estimate.mean == pytest.approx(other.estimate.mean)
    for end in ("low", "high"):
        found = getattr(one.estimate, end)
        assert found == pytest.approx(getattr(other.estimate, end), abs=0.5)
    assert one.p == pytest.approx(other.p, abs=0.01)
    assert one.components.images == pytest.approx(other.components.images)
    assert one.components.seeds == pytest.approx(other.components.seeds)


def test_equal_answers_are_rare_and_equal() -> None:
    found = ResampledScores(GIVEN, GROUPS, macro_f1).difference("a", "again")
    assert found.estimate.mean == 0 and found.p > 0.9 and found.components.rare


def test_macro_f1_is_between_its_interval_and_tells_a_better_arm() -> None:
    scores = ResampledScores(GIVEN, GROUPS, macro_f1)
    found = scores.difference("a", "b")
    assert found.estimate.low > 0 and found.p < 0.05
    own = scores.score("a")
    assert own.low < own.mean < own.high


def test_the_statistic_is_resampled_and_not_its_jackknife_values() -> None:
    """The largest value jumps: its bootstrap differs from that of any mean."""
    worth = np.arange(len(TRUTH), dtype=float) / 4

    def largest(several: Sequence[Sequence[str]]) -> Statistic:
        return lambda weights_RQ: (np.tile(worth, len(several)) * (weights_RQ > 0)).max(1)

    own = ResampledScores({"a": [TRUTH]}, GROUPS, largest).score("a")
    assert own.mean == 99.75 and own.high == own.mean and own.low < 98


def test_an_error_that_is_above_zero_by_chance_has_an_interval_that_goes_below_it() -> None:
    """Answers whose confidence is right: their calibration error is 0, and found to be more."""
    drawn = np.random.default_rng(0)
    found = []
    for _ in range(20):
        logit_SQ = np.abs(drawn.normal(1.2, 1.2, (2, len(TRUTH))))
        right_SQ = drawn.random(logit_SQ.shape) < 1 / (1 + np.exp(-logit_SQ))
        for_yes_SQ = np.where(right_SQ == (np.array(TRUTH) == "yes"), logit_SQ, -logit_SQ)
        both_SQ2 = -np.logaddexp(0, np.stack([-for_yes_SQ, for_yes_SQ], axis=2))

        def make(several: Sequence[Sequence[list[float]]]) -> Statistic:
            joined = [one for model in several for one in model]
            asked = examples(*(("closed", true) for true in TRUTH)) * len(several)
            return weighted(likelihoods.MEASURE, "ece", joined, asked)

        scores = ResampledScores({"a": both_SQ2.tolist()}, GROUPS, make, replicates=200)
        error, plain = scores.above_zero("a", by_chance=0.0), scores.score("a")
        assert scores.above_zero("a", by_chance=error.mean).low == 0
        assert 0 <= error.low <= error.mean <= error.high and error.mean == plain.mean > 0
        found.append((error.low, plain.low))
    lows, plain_lows = np.array(found).T
    assert np.mean(lows < 0.5) > 0.9 > 0.3 > np.mean(plain_lows < 0.5)
