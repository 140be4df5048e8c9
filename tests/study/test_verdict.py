import numpy as np
import pytest

from study.verdict import Comparison, Estimate, compare, estimate

QUESTIONS, IMAGES = 400, 100
images = [f"image {q % IMAGES}" for q in range(QUESTIONS)]


def answers(accuracy: float, seeds: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    return (drawn.random((seeds, QUESTIONS)) < accuracy).astype(float)


def test_the_interval_of_independent_questions_is_the_binomial_one() -> None:
    correct = answers(0.7, 1, 0)
    found = estimate(correct, [str(q) for q in range(QUESTIONS)])
    half = 196 * (correct.mean() * (1 - correct.mean()) / QUESTIONS) ** 0.5
    assert found.mean == pytest.approx(100 * correct.mean())
    assert found.mean - found.low == pytest.approx(half, rel=0.1)
    assert found.high - found.mean == pytest.approx(half, rel=0.1)


def test_questions_that_stand_or_fall_with_their_image_widen_it() -> None:
    per_image = np.random.default_rng(0).random(IMAGES) < 0.7
    correct = np.array([[float(per_image[q % IMAGES]) for q in range(QUESTIONS)]])
    clustered = estimate(correct, images)
    naive = estimate(correct, [str(q) for q in range(QUESTIONS)])
    assert (clustered.high - clustered.low) > 1.7 * (naive.high - naive.low)


def test_a_difference_on_the_same_questions_is_surer_than_its_parts() -> None:
    hard = np.random.default_rng(0).random(QUESTIONS)
    worse = np.stack([(hard < 0.60).astype(float)] * 2)
    better = np.stack([(hard < 0.65).astype(float)] * 2)
    found = compare("better", better, "worse", worse, images)
    assert found.difference.mean == pytest.approx(100 * (better - worse).mean())
    assert found.told_apart
    alone = estimate(better, images)
    assert found.difference.high - found.difference.low < (alone.high - alone.low) / 2


def test_an_arm_cannot_be_told_from_itself_and_order_only_turns_the_sign() -> None:
    one, two = answers(0.6, 3, 1), answers(0.6, 3, 2)
    there, back = compare("a", one, "b", two, images), compare("b", two, "a", one, images)
    assert there.difference.mean == pytest.approx(-back.difference.mean)
    assert not compare("a", one, "a", one, images).told_apart


@pytest.mark.parametrize(
    ("mean", "low", "high", "said"),
    [
        (3.0, 1.0, 5.0, "a is better than b by 3.0 points (95% interval 1.0 to 5.0)."),
        (-3.0, -5.0, -1.0, "b is better than a by 3.0 points (95% interval 1.0 to 5.0)."),
        (
            -1.0,
            -4.0,
            2.0,
            "b and a cannot be told apart: b is 1.0 points higher, 95% interval -2.0 to +4.0.",
        ),
    ],
)
def test_the_sentence_says_what_the_interval_does(
    mean: float, low: float, high: float, said: str
) -> None:
    difference = Estimate(mean=mean, low=low, high=high)
    assert Comparison(first="a", second="b", difference=difference).sentence() == said
