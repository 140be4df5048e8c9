"""What it does to a comparison if seeds are added until something is found.

Two equal arms are confirmed with 12 seeds each. They are compared after the first 3 seeds, after 6,
9 and 12, as a user would who goes on while they cannot be told apart. This is why a study of two
seeds or more takes no others (``study.launch --resume NAME --seeds N``).

``python -m tests.benchmarks.looks [--studies 600]`` prints the percent of studies that call one of
the arms better after 3 seeds, after 12 with no look before, and at any of the four looks, with two
standard errors.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from study.statistics.pairwise import compare
from study.statistics.uncertainty import Scores
from tests.benchmarks.claims import PATH_VQA, REPLICATES, SLAKE, percent

LOOKS = (3, 6, 9, 12)
"""Numbers of seeds after which a user looks."""
TRUTH = 0.65
WORLDS = {
    "SLAKE, seeds 1 point apart": SLAKE,
    "SLAKE, seeds 3 points apart": replace(SLAKE, of_seed=0.135),
    "PathVQA, seeds 1 point apart": PATH_VQA,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=600, help="of each world")
    studies = parser.parse_args().studies
    print(f"{studies} studies a row\n")
    print(f"| world | after 3 seeds | after 12 alone | at any of {LOOKS} |\n|---|---|---|---|")
    for name, world in WORLDS.items():
        drawn = np.random.default_rng(11)
        groups = [f"{i}" for i in np.repeat(np.arange(world.images), world.questions)]
        told_NL = []
        for _ in range(studies):
            answers = replace(world, seeds=LOOKS[-1]).answers([TRUTH, TRUTH], drawn)
            told = []
            for seeds in LOOKS:
                correct = dict(zip("ab", (arm[:seeds] for arm in answers), strict=True))
                scores = Scores(correct, groups, replicates=REPLICATES)
                told.append(compare(correct, groups, margin=1.0, scores=scores).pairs[0].told_apart)
            told_NL.append(told)
        columns = [t[0] for t in told_NL], [t[-1] for t in told_NL], [any(t) for t in told_NL]
        cells = [f"{mean:.1f} ±{error:.1f}" for mean, error in map(percent, columns)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
