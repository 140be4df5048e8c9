"""What repeated splits of one small dataset could claim: how often an interval made of K splits
holds the truth, and how often equal arms are called different.

A made-up dataset has images that are divided K times as ``--split by_image`` divides them (70 in
100 to training, 20 to testing, each image by itself). In each split each arm is searched and
confirmed anew. Splits share questions, and their training sets share images, so that the K
differences of two arms are not independent. What is true is how two *methods* differ, each trained
on as many examples of the same kind: over datasets, searches and seeds.

* ``corrected``: mean over splits, variance ``(1/K + n_test/n_train) s^2``, Student's t with K - 1
  degrees of freedom (Nadeau and Bengio 2003, doi 10.1023/A:1024068626366: the corrected resampled
  t-test);
* ``plain``: the same with ``s^2 / K``, as if splits were independent datasets;
* ``one split``: the product's own interval of K searches on the first split
  (``study.statistics.uncertainty``), whose claim is about methods *on this training split*.

``python -m tests.benchmarks.splits [--studies 2000]`` prints the table.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from study.statistics.repeated_splits import over_splits
from study.statistics.uncertainty import Scores, holm
from tests.benchmarks.coverage import TRUTH, World

Array = np.ndarray[Any, Any]
TRAINING, TESTING = 0.7, 0.2
"""Shares of the images."""
AHEAD = 0.02
"""How much better the first arm is where intervals are judged."""
REPLICATES = 500
MANY = 5
"""Arms in the rows of more than two."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A kind of dataset, and what brings luck to the models that are trained on it."""

    name: str
    world: World
    """All images and questions of the dataset, the seeds of a confirmation, and what varies."""
    of_training: float = 0.0
    """Points that a model's accuracy varies by with the images that it was trained on: standard
    deviation over training sets that share none."""
    of_search: float = 0.0
    """Points that a search ends below its best: scale of a half-normal distribution."""

    @property
    def points(self) -> float:
        """Points of accuracy for a luck of 1."""
        return self.world.seed_points / self.world.of_seed


VQA_RAD = World(images=315, questions=7, of_seed=0.045)
"""2,205 questions, 441 of them for testing."""
SMALL = World(images=72, questions=7, of_seed=0.045)
"""504 questions, 101 of them for testing."""


def datasets() -> list[Dataset]:
    """The rows of the table."""
    return [
        Dataset(
            name=f"{name}, training {of_training:g}, search {of_search:g}",
            world=world,
            of_training=of_training,
            of_search=of_search,
        )
        for name, world in (("441 test questions", VQA_RAD), ("101 test questions", SMALL))
        for of_training, of_search in ((0, 0), (0, 2), (1, 2), (2, 2), (4, 2))
    ]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What one made-up study saw."""

    scores_AK: Array
    """Accuracy of each arm in each split, its seeds' mean."""
    tested_per_trained: float
    """Test questions by training questions, as a mean over splits."""
    first: Scores | None
    """The first split alone with K searches of each arm; None: not asked for."""


def make(
    dataset: Dataset,
    truths: list[float],
    splits: int,
    drawn: np.random.Generator,
    *,
    first: bool = True,
) -> Study:
    """Make up a study of arms whose methods have these true accuracies."""
    world, unit = dataset.world, 1 / dataset.points
    images, arms = world.images, len(truths)
    image_Q = np.repeat(np.arange(images), world.questions)
    shared_Q = world.of_image * drawn.standard_normal(images)[image_Q]
    shared_Q += world.of_question * drawn.standard_normal(len(image_Q))
    arm_AI = world.of_arm * drawn.standard_normal((arms, images))
    taught_AI = unit * dataset.of_training * drawn.standard_normal((arms, images))
    sides: list[tuple[Array, Array]] = []
    while len(sides) < splits:
        bucket_I = drawn.random(images)
        if (bucket_I < TRAINING).any() and (bucket_I >= 1 - TESTING).any():
            sides.append((bucket_I < TRAINING, bucket_I >= 1 - TESTING))
    lucks = math.hypot(world.total, unit * dataset.of_training)

    def answers(arm: int, trained_I: Array, tested_Q: Array) -> Array:
        """Answers of the models of one search; (S, Q)."""
        taught = taught_AI[arm, trained_I].sum() / math.sqrt(trained_I.sum())
        lost = unit * dataset.of_search * (abs(drawn.standard_normal()) - math.sqrt(2 / math.pi))
        asked = image_Q[tested_Q]
        luck_SQ = world.of_seed * drawn.standard_normal((world.seeds, 1))
        luck_SQ = luck_SQ + world.of_both * drawn.standard_normal((world.seeds, images))[:, asked]
        luck_SQ += drawn.standard_normal((world.seeds, len(asked)))
        above = stats.norm.ppf(truths[arm]) * lucks + taught - lost
        right_SQ: Array = above + shared_Q[tested_Q] + arm_AI[arm, asked] + luck_SQ > 0
        return right_SQ.astype(float)

    scores_AK = np.array(
        [[answers(a, train, test[image_Q]).mean() for train, test in sides] for a in range(arms)]
    )
    alone = None
    if first:
        train, test = sides[0]
        alone = Scores(
            {
                str(a): np.stack([answers(a, train, test[image_Q]).mean(0) for _ in range(splits)])
                for a in range(arms)
            },
            [f"{i}" for i in image_Q[test[image_Q]]],
            replicates=REPLICATES,
        )
    ratio = float(np.mean([test.sum() / train.sum() for train, test in sides]))
    return Study(scores_AK=scores_AK, tested_per_trained=ratio, first=alone)


def interval(apart_K: Array, shared: float) -> tuple[float, float, float]:
    """Interval of a mean difference, and its p-value; ``shared`` is what is added to 1/K."""
    found = over_splits(100 * apart_K, shared)
    return found.estimate.low / 100, found.estimate.high / 100, found.p


WAYS = ("corrected", "plain", "one split")


def measure(dataset: Dataset, splits: int, studies: int) -> tuple[dict[str, Array], float]:
    """Way -> shares of studies in which its interval holds the true difference, and in which it
    calls equal arms different, and its mean width, all in percent, shape (3,); and the percent of
    studies in which the corrected interval of one arm holds its accuracy."""
    drawn = np.random.default_rng(splits)
    found, alone = {way: np.zeros(3) for way in WAYS}, 0
    for _ in range(studies):
        for truth in (AHEAD, 0.0):
            study = make(dataset, [TRUTH, TRUTH - truth], splits, drawn)
            apart_K = study.scores_AK[0] - study.scores_AK[1]
            assert study.first is not None
            first = study.first.difference("0", "1")
            low, high, _ = interval(study.scores_AK[0], study.tested_per_trained)
            alone += low <= TRUTH <= high
            ends = {
                "corrected": interval(apart_K, study.tested_per_trained),
                "plain": interval(apart_K, 0.0),
                "one split": (first.estimate.low / 100, first.estimate.high / 100, first.p),
            }
            for way, (low, high, p) in ends.items():
                if truth:
                    found[way] += (low <= truth <= high, 0, high - low)
                else:
                    found[way][1] += p < 0.05 and not low <= 0 <= high
    return {way: 100 * c / studies for way, c in found.items()}, 50 * alone / studies


def false_of_many(dataset: Dataset, splits: int, studies: int) -> float:
    """Percent of studies of ``MANY`` equal arms in which the corrected test calls one better than
    another, after Holm."""
    drawn, false = np.random.default_rng(splits), 0
    for _ in range(studies):
        study = make(dataset, [TRUTH] * MANY, splits, drawn, first=False)
        pairs = combinations(study.scores_AK, 2)
        tests = [interval(a - b, study.tested_per_trained)[2] for a, b in pairs]
        false += min(holm(tests)) < 0.05
    return 100 * false / studies


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="of each row")
    parser.add_argument("--only", default="", help="rows with this in their names")
    given = parser.parse_args()
    error = 200 * math.sqrt(0.05 * 0.95 / given.studies)
    print(f"{given.studies} made-up studies a row; 5% and 95% are sure to {error:.1f} points\n")
    heads = (f"{way}: {what}" for way in WAYS for what in ("covers", "false", "width"))
    print(f"| world, points of luck | K | {' | '.join(heads)} | {MANY} arms: false | one arm |")
    print("|---|---|" + "---|" * (3 * len(WAYS) + 2))
    for dataset in datasets():
        if given.only not in dataset.name:
            continue
        for splits in (3, 5, 10):
            found, alone = measure(dataset, splits, given.studies)
            cells = " | ".join(f"{value:.1f}" for way in WAYS for value in found[way])
            many = false_of_many(dataset, splits, given.studies)
            print(f"| {dataset.name} | {splits} | {cells} | {many:.1f} | {alone:.1f} |", flush=True)


if __name__ == "__main__":
    main()
