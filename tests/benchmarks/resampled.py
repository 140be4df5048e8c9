"""How often intervals and tests of a resampled statistic err, on made-up studies of equal arms.

``python -m tests.benchmarks.resampled [--studies 200]`` prints, for macro F1 and AUROC of yes/no
questions of which few are yes, how often the interval of the difference of two arms holds 0, how
often one of the arms is called better (p below 0.05), and the mean width of the interval; and the
same for accuracy, whose statistics are those of ``study.statistics.uncertainty``, to compare with.

Then it prints, for models whose confidence is right, too high, or much too high, how often the
interval of an arm's expected calibration error holds the error that as many seeds have on endless
questions: the product's interval, and the percentile interval, which other measures have.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from study.statistics.resampled import ResampledScores
from study.statistics.uncertainty import Scores
from tests.trainables.measures.examples import examples
from trainables.measures import balanced, likelihoods
from trainables.measures.common.measure import Measure, Weighted, weighted

IMAGES, QUESTIONS, POSITIVE = 75, 4, 0.25
"""Images, questions about each, and share of the questions whose answer is yes."""
SPREAD, SEEDS_SPREAD = 1.0, 0.2
"""Standard deviations of the logit of an arm's answer between images and between seeds."""
SHARP = {"right": 1.0, "too high": 0.6, "much too high": 0.2}
"""How sure a model is -> the logit of the chance that an answer is right, in units of the logit
that it gives for it."""
ENDLESS = 400_000
"""Questions whose calibration error is taken for the true one."""
MEASURES = {"accuracy": None, "macro_f1": balanced.MEASURE, "auroc": likelihoods.MEASURE}


def study(
    column: str, measure: Measure | None, seeds: int, drawn: np.random.Generator
) -> tuple[Any, Any]:
    """Difference of two equal arms in one made-up study: its estimate and its p-value."""
    count = IMAGES * QUESTIONS
    truth = np.where(drawn.random(count) < POSITIVE, 1, -1)
    groups = [f"{number // QUESTIONS}" for number in range(count)]
    asked = examples(*(("closed", "yes" if true > 0 else "no") for true in truth))
    hard_Q = np.repeat(drawn.normal(0, SPREAD, IMAGES), QUESTIONS)

    def answered() -> list[Any]:
        logit_Q = 1.0 + hard_Q + drawn.normal(0, SEEDS_SPREAD) + drawn.logistic(size=count)
        for_yes_Q = truth * logit_Q
        if measure is None:
            return [float(logit > 0) for logit in logit_Q]
        if measure.takes == "answers":
            return ["yes" if logit > 0 else "no" for logit in for_yes_Q]
        return [[float(-np.logaddexp(0, -x)), float(-np.logaddexp(0, x))] for x in for_yes_Q]

    def make(several: Sequence[Sequence[Any]]) -> Weighted:
        assert measure is not None
        joined = [one for given in several for one in given]
        return weighted(measure, column, joined, asked * len(several))

    given = {arm: [answered() for _ in range(seeds)] for arm in ("a", "b")}
    if measure is None:
        earned = {arm: np.array(models) for arm, models in given.items()}
        found = Scores(earned, groups, replicates=2_000).difference("a", "b")
    else:
        found = ResampledScores(given, groups, make).difference("a", "b")
    return found.estimate, found.p


def confident(images: int, sharp: float, seed: float, drawn: np.random.Generator) -> list[Any]:
    """Likelihoods of yes and no that one model gives to questions whose answer is yes, four about
    each image. ``seed`` is what its seed adds to the logit of being right."""
    logit_Q = np.abs(
        drawn.normal(1.2, 1.0, images * QUESTIONS)
        + np.repeat(drawn.normal(0, 0.7, images), QUESTIONS)
    )
    right_Q = drawn.random(len(logit_Q)) < 1 / (1 + np.exp(-sharp * logit_Q - seed))
    for_yes_Q = np.where(right_Q, logit_Q, -logit_Q)
    found_Q2: list[Any] = (-np.logaddexp(0, np.stack([-for_yes_Q, for_yes_Q], axis=1))).tolist()
    return found_Q2


def calibration_study(
    images: int, sharp: float, seeds: int, drawn: np.random.Generator
) -> tuple[Any, Any]:
    """Calibration error of an arm in one made-up study: the product's interval, and percentiles."""
    asked = examples(*(("closed", "yes") for _ in range(images * QUESTIONS)))
    groups = [f"{number // QUESTIONS}" for number in range(images * QUESTIONS)]

    def make(several: Sequence[Sequence[Any]]) -> Weighted:
        joined = [one for given in several for one in given]
        return weighted(likelihoods.MEASURE, "ece", joined, asked * len(several))

    lucks = drawn.normal(0, SEEDS_SPREAD, seeds)
    given = {"a": [confident(images, sharp, luck, drawn) for luck in lucks]}
    scores = ResampledScores(given, groups, make, replicates=1_000)
    by_chance = likelihoods.ece_by_chance(given["a"], asked, 97.5)
    return scores.above_zero("a", by_chance), scores.score("a")


def true_error(sharp: float) -> float:
    """Calibration error on endless questions, mean over seeds."""
    drawn, errors = np.random.default_rng(0), []
    for luck in np.quantile(drawn.normal(0, SEEDS_SPREAD, 100_000), (np.arange(9) + 0.5) / 9):
        endless = np.array(confident(ENDLESS // QUESTIONS // 9, sharp, luck, drawn))
        chance_Q, right_Q = np.exp(endless.max(1)), endless[:, 0] > endless[:, 1]
        bin_Q = likelihoods.bins(chance_Q)
        apart_B = np.bincount(bin_Q, right_Q - chance_Q, likelihoods.BINS)
        errors.append(float(100 * np.abs(apart_B).sum() / len(chance_Q)))
    return float(np.mean(errors))


def print_calibration(studies: int) -> None:
    """Print a row for each confidence and number of images."""
    print("\nconfidence     images  truth   found  holds  width  plainly  width")
    for name, sharp in SHARP.items():
        truth = true_error(sharp)
        for images in (25, IMAGES, 4 * IMAGES):
            drawn = np.random.default_rng(1)
            found = [calibration_study(images, sharp, 3, drawn) for _ in range(studies)]
            cells = []
            for ends in zip(*found, strict=True):
                cells += [
                    f"{np.mean([one.low <= truth <= one.high for one in ends]):7.1%}",
                    f"{np.mean([one.high - one.low for one in ends]):6.1f}",
                ]
            mean = np.mean([one.mean for one, _ in found])
            print(f"{name:14} {images:6} {truth:6.1f} {mean:7.1f} {' '.join(cells)}", flush=True)


def main() -> None:
    """Print a row for each measure and number of seeds, and those of calibration errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--only", default="", help="a measure: accuracy, macro_f1, auroc or ece")
    parser.add_argument("--stream", type=int, default=1, help="random numbers of the studies")
    given = parser.parse_args()
    studies = given.studies
    print("measure   seeds  holds 0   better  width")
    for column, measure in MEASURES.items():
        for seeds in given.seeds if given.only in ("", column) else ():
            drawn = np.random.default_rng(given.stream)
            found = [study(column, measure, seeds, drawn) for _ in range(studies)]
            holds = np.mean([one.low <= 0 <= one.high for one, _ in found])
            better = np.mean([p < 0.05 and not one.low <= 0 <= one.high for one, p in found])
            width = np.mean([one.high - one.low for one, _ in found])
            print(f"{column:9} {seeds:5} {holds:8.1%} {better:8.1%} {width:6.1f}", flush=True)
    if given.only in ("", "ece"):
        print_calibration(studies)


if __name__ == "__main__":
    main()
