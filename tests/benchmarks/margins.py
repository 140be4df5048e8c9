"""How often an arm that is worse by the margin is called not worse, of two arms and of twelve.

One arm is ahead of all others, which are equal, by just more than the margin. To call one of these
as good as the first, or not worse by more than the margin, is false.

``python -m tests.benchmarks.margins [--studies 400]`` prints, in percent with two standard errors,
the pairs of which this is said, and the studies that say it of any pair.
"""

from __future__ import annotations

import argparse

import numpy as np

from study.statistics.pairwise import compare
from study.statistics.score_types import Finding
from study.statistics.uncertainty import Scores
from tests.benchmarks.claims import REPLICATES, SLAKE, percent

TRUTH, BEYOND = 65.0, 0.1
"""Accuracy of the arms that are behind, and points beyond the margin by which they are."""
FIRST = "0"
"""The arm that is ahead."""
ROWS = ((2, 1.0), (5, 1.0), (12, 1.0), (12, 3.0))
"""Numbers of arms, and margins in points."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=400, help="of each row")
    studies = parser.parse_args().studies
    groups = [f"{i}" for i in np.repeat(np.arange(SLAKE.images), SLAKE.questions)]
    print(f"{studies} studies a row\n")
    print("| arms | margin | a pair | any pair of a study |\n|---|---|---|---|")
    for arms, margin in ROWS:
        drawn, false = np.random.default_rng(3), []
        truths = [(TRUTH + margin + BEYOND) / 100] + [TRUTH / 100] * (arms - 1)
        for _ in range(studies):
            correct = {str(arm): each for arm, each in enumerate(SLAKE.answers(truths, drawn))}
            scores = Scores(correct, groups, replicates=REPLICATES)
            pairs = compare(correct, groups, margin=margin, scores=scores).pairs
            false.append(
                [
                    pair.finding in (Finding.AS_GOOD, Finding.NOT_WORSE)
                    and pair.difference.high < margin
                    for pair in pairs
                    if pair.first == FIRST
                ]
            )
        shares = percent([float(np.mean(f)) for f in false]), percent([any(f) for f in false])
        cells = [f"{mean:.1f} ±{error:.1f}" for mean, error in shares]
        print(f"| {arms} | {margin:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
