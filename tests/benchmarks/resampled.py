"""How often intervals and tests of a resampled statistic err, on made-up studies of equal arms.

``python -m tests.benchmarks.resampled [--studies 200]`` prints, for macro F1 and AUROC of yes/no
questions of which few are yes, how often the interval of the difference of two arms holds 0, how
often one of the arms is called better (p below 0.05), and the mean width of the interval; and the
same for accuracy, whose statistics are those of ``study.statistics.uncertainty``, to compare with.
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


def main() -> None:
    """Print a row for each measure and number of seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3])
    studies = parser.parse_args().studies
    print("measure   seeds  holds 0   better  width")
    for column, measure in MEASURES.items():
        for seeds in parser.parse_args().seeds:
            drawn = np.random.default_rng(1)
            found = [study(column, measure, seeds, drawn) for _ in range(studies)]
            holds = np.mean([one.low <= 0 <= one.high for one, _ in found])
            better = np.mean([p < 0.05 and not one.low <= 0 <= one.high for one, p in found])
            width = np.mean([one.high - one.low for one, _ in found])
            print(f"{column:9} {seeds:5} {holds:8.1%} {better:8.1%} {width:6.1f}", flush=True)


if __name__ == "__main__":
    main()
