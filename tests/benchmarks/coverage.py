"""How often intervals hold the truth, and how often tests see a difference where there is none.

Made-up answers of two arms whose true accuracies are known. They vary between images, questions,
seeds and all of these together. ``study.statistics.uncertainty`` stands beside the plain ways:

* ``bootstrap``: images and seeds resampled, percentiles (what is mostly done);
* ``images only``: as above with the trained models taken for given;
* ``models``: exact permutation test over the labels of the trained models.

``python -m tests.benchmarks.coverage [--studies 1000]`` prints that table, and the one of claims
(``claims.py``): what whole studies say of many arms, of methods and of the best arm.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from study.statistics.uncertainty import Scores

Array = np.ndarray[Any, Any]
REPLICATES = 1000
COUNTED = (
    *("covers", "arm covers", "width", "plain covers", "plain width", "images cover"),
    *("rejects", "images reject", "models reject"),
)
TRUTH = 0.65
"""Accuracy of the better arm, or of both."""


@dataclass(frozen=True, kw_only=True)
class World:
    """How answers come about: correct if a sum of lucks exceeds a threshold."""

    seeds: int = 3
    images: int = 100
    questions: int = 4
    """An image."""
    of_seed: float = 0.05
    """Standard deviations of the lucks, in units of that of a single answer: of a seed ..."""
    of_image: float = 0.5
    """... of an image, for all arms alike ..."""
    of_question: float = 0.7
    """... of a question, for all arms alike ..."""
    of_arm: float = 0.3
    """... of an image for one arm ..."""
    of_both: float = 0.2
    """... and of an image for one seed."""
    steady: float = 1.0
    """The second arm's luck of seeds as a multiple of the first's."""

    @property
    def total(self) -> float:
        """Standard deviation of the first arm's sum."""
        return self._total(self.of_seed)

    def _total(self, of_seed: float) -> float:
        rest = self.of_image**2 + self.of_question**2 + self.of_arm**2 + self.of_both**2
        return math.sqrt(1 + of_seed**2 + rest)

    @property
    def seed_points(self) -> float:
        """What a seed's luck does to the first arm's accuracy: standard deviation in points."""
        z = _quantile(TRUTH)
        return 100 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi) * self.of_seed / self.total

    def answers(
        self, truths: Sequence[float | Sequence[float]], drawn: np.random.Generator
    ) -> list[Array]:
        """Answers of arms of these true accuracies: shapes (S, Q). An arm may have one for each of
        its seeds."""
        image_Q = np.repeat(np.arange(self.images), self.questions)
        shared_Q = self.of_image * drawn.standard_normal(self.images)[image_Q]
        shared_Q += self.of_question * drawn.standard_normal(len(image_Q))
        found = []
        each = (self.of_seed, *(self.of_seed * self.steady for _ in truths[1:]))
        for truth, of_seed in zip(truths, each, strict=True):
            arm_Q = self.of_arm * drawn.standard_normal(self.images)[image_Q]
            both_SQ = self.of_both * drawn.standard_normal((self.seeds, self.images))[:, image_Q]
            luck_SQ = of_seed * drawn.standard_normal((self.seeds, 1)) + both_SQ
            luck_SQ += drawn.standard_normal((self.seeds, len(image_Q)))
            above_S1 = np.array([_quantile(t) for t in np.broadcast_to(truth, self.seeds)])[:, None]
            above_S1 = above_S1 * self._total(of_seed)
            found.append((above_S1 + shared_Q + arm_Q + luck_SQ > 0).astype(float))
        return found


WORLDS = {
    "seeds as alike as can be": World(of_seed=0.0),
    "3 seeds, 1 point apart": World(of_seed=0.045),
    "3 seeds, 3 points apart": World(of_seed=0.135),
    "3 seeds, one arm steady": World(of_seed=0.135, steady=0.1),
    "3 seeds, 3 points, many images": World(of_seed=0.135, images=500),
    "3 seeds, 20 images": World(of_seed=0.045, images=20, questions=20),
    "2 seeds, 1 point apart": World(seeds=2, of_seed=0.045),
    "5 seeds, 3 points apart": World(seeds=5, of_seed=0.135),
    "10 seeds, 3 points apart": World(seeds=10, of_seed=0.135),
    "questions one an image": World(images=400, questions=1, of_seed=0.045),
    "images all or nothing": World(of_image=2.0, of_arm=1.0, of_question=0.2, of_seed=0.045),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="of each world")
    parser.add_argument("--claims", type=int, default=300, help="studies of each row of claims")
    parser.add_argument("--searches", type=int, default=150, help="searches of each surface")
    parser.add_argument("--played", type=Path, help="file of the searches that were played")
    parser.add_argument("--only", help="PART[|PART]: rows of claims with one in their names")
    parser.add_argument("--arms", type=int, help="rows of claims of so many arms alone")
    given = parser.parse_args()
    if not given.only and given.arms is None:
        _print_intervals(given.studies)
    from tests.benchmarks import claims

    claims.main(given.claims, given.searches, given.played, given.only, given.arms)


def _print_intervals(studies: int) -> None:
    print(
        f"{studies} made-up studies a row; a share of them is sure to "
        f"{196 * math.sqrt(0.05 * 0.95 / studies):.1f} points\n"
    )
    print(
        "| world | seeds' sd, points | one arm | difference: ours | bootstrap | images only "
        "| false positives: ours | images only | models | width: ours / bootstrap |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, world in WORLDS.items():
        r = measure(world, studies)
        print(
            f"| {name} | {world.seed_points:.1f} | {r['arm covers']:.1f} "
            f"| **{r['covers']:.1f}** | {r['plain covers']:.1f} "
            f"| {r['images cover']:.1f} | **{r['rejects']:.1f}** | {r['images reject']:.1f} "
            f"| {r['models reject']:.1f} | {r['width'] / r['plain width']:.2f} |",
            flush=True,
        )


def measure(world: World, studies: int, seed: int = 0) -> dict[str, float]:
    """Percent of ``studies`` in which each interval holds the true difference (of 2 points), in
    which a single arm's holds its accuracy, and in which each test rejects that equal arms are."""
    drawn = np.random.default_rng(seed)
    images = [f"{i}" for i in np.repeat(np.arange(world.images), world.questions)]
    counts: defaultdict[str, float] = defaultdict(float)
    for _ in range(studies):
        first, second = world.answers((TRUTH, TRUTH - 0.02), drawn)
        scores = Scores({"a": first, "b": second}, images, replicates=REPLICATES)
        found = scores.difference("a", "b").estimate
        counts["covers"] += found.low <= 2 <= found.high
        counts["width"] += found.high - found.low
        alone = scores.score("a")
        counts["arm covers"] += alone.low <= 100 * TRUTH <= alone.high
        for name, resample in (("plain covers", True), ("images cover", False)):
            low, high = _bootstrap(first, second, world, drawn, seeds=resample)
            counts[name] += low <= 2 <= high
            counts["plain width"] += (high - low) * resample
        first, second = world.answers((TRUTH, TRUTH), drawn)
        equal = Scores({"a": first, "b": second}, images, replicates=REPLICATES)
        counts["rejects"] += equal.difference("a", "b").p < 0.05
        low, high = _bootstrap(first, second, world, drawn, seeds=False)
        counts["images reject"] += not low <= 0 <= high
        counts["models reject"] += _permuted_models(first.mean(1), second.mean(1)) < 0.05
    return {name: 100 * counts[name] / studies for name in COUNTED}


def _bootstrap(
    first_SQ: Array, second_SQ: Array, world: World, drawn: np.random.Generator, *, seeds: bool
) -> tuple[float, float]:
    """The percentile interval of the difference in points."""
    share = np.full(world.images, 1 / world.images)
    weights_RC = drawn.multinomial(world.images, share, size=REPLICATES) / world.images
    means = []
    for correct_SQ in (first_SQ, second_SQ):
        count = len(correct_SQ)
        accuracy_RS = weights_RC @ correct_SQ.reshape(count, world.images, -1).mean(2).T
        even = np.full(count, 1 / count)
        picked_RS = drawn.multinomial(count, even, size=REPLICATES) / count if seeds else even
        means.append((accuracy_RS * picked_RS).sum(1))
    low, high = np.percentile(100 * (means[0] - means[1]), [2.5, 97.5])
    return float(low), float(high)


def _permuted_models(first_S: Array, second_S: Array) -> float:
    """The exact two-sided p-value of exchanging trained models between arms."""
    together = np.concatenate([first_S, second_S])
    seen = abs(first_S.mean() - second_S.mean())
    ways = (
        [
            abs(together[list(chosen)].mean() - np.delete(together, chosen).mean())
            for chosen in itertools.combinations(range(len(together)), len(first_S))
        ]
        if len(together) <= 12
        else [
            abs(np.subtract(*np.random.default_rng(i).permutation(together).reshape(2, -1).mean(1)))
            for i in range(500)
        ]
    )
    return float(np.mean([way >= seen - 1e-12 for way in ways]))


def _quantile(share: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(share))


if __name__ == "__main__":
    main()
