"""How often the interval of a difference of differences holds the truth, and how often its test
sees one where there is none.

Four made-up arms, two methods with two base models, in the worlds of ``coverage.py``. The second
base scores less, and the methods differ alike with both, or by ``APART`` more with the first.

``python -m tests.benchmarks.interactions [--studies 500]`` prints the table.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from study.statistics.uncertainty import Scores
from tests.benchmarks.coverage import REPLICATES, TRUTH, WORLDS, World

APART = 0.1
"""Interaction of the studies in which there is one, as a fraction."""
ARMS = ("a", "b", "c", "d")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500, help="of each world")
    studies = parser.parse_args().studies
    print("| world | covers | false at 5% | found | width |\n|---|---|---|---|---|")
    for name, world in WORLDS.items():
        r = measure(world, studies)
        row = (r[part] for part in ("covers", "false", "found", "width"))
        print(f"| {name} |" + "|".join(f" {value:.1f} " for value in row) + "|", flush=True)


def measure(world: World, studies: int, seed: int = 0) -> dict[str, float]:
    """Percent of ``studies`` in which the interval holds the interaction of ``APART``, in which one
    is seen where there is none, and in which that of ``APART`` is; and the interval's width."""
    drawn = np.random.default_rng(seed)
    images = [f"{i}" for i in np.repeat(np.arange(world.images), world.questions)]
    counts: defaultdict[str, float] = defaultdict(float)
    for _ in range(studies):
        for apart in (0.0, APART):
            truths = (TRUTH + apart, TRUTH, TRUTH - 0.05, TRUTH - 0.05)
            answers = dict(zip(ARMS, world.answers(truths, drawn), strict=True))
            scores = Scores(answers, images, replicates=REPLICATES)
            found = scores.interaction(("a", "b"), ("c", "d"))
            seen = found.p < 0.05 and not found.estimate.low <= 0 <= found.estimate.high
            counts["found" if apart else "false"] += seen
            if apart:
                counts["covers"] += found.estimate.low <= 100 * apart <= found.estimate.high
                counts["width"] += (found.estimate.high - found.estimate.low) / 100
    return {name: 100 * counts[name] / studies for name in ("covers", "false", "found", "width")}


if __name__ == "__main__":
    main()
