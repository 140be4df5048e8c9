"""What is claimed of two arms one of which collapses with one seed in ten, and how often it is so.

Both arms have the same accuracy where training does not collapse. What the product says is judged
in two ways: as a claim about the mean over all trainings, collapsed ones included, and as a claim
about trainings that do not collapse, which it is where no seed collapsed; where one did, its loss
is in the interval and the claim is about all trainings (``study.statistics.pairwise``).

Each study is judged as it was before the rule of ``study.search.unsteady_arms`` and by it. Its
search has trials at learning rates no larger than the best's, each of which diverges as often as a
seed collapses: six, as of 12 trials of an arm, or none, if what makes seeds collapse makes no trial
diverge.

``python -m tests.benchmarks.collapses [--studies 1000]`` prints a row for each world, rule and
number of such trials. *Covers*: 95% intervals that hold the difference. *False*: studies that call
an arm better than one that it is not better than. *Seen*: studies in which a seed collapsed. In
percent with two standard errors; widths in points.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from study.config.budget import TIMES_IF_DIVERGED
from study.statistics.pairwise import compare
from study.statistics.uncertainty import Scores
from tests.benchmarks.claims import LEFT, PATH_VQA, REPLICATES, SLAKE, VQA_RAD, percent
from tests.benchmarks.coverage import World

RATE, TRUTH = 0.1, 0.65
"""Share of the first arm's trainings that collapse, and accuracy of those that do not."""
WORLDS = {
    "SLAKE, 3 seeds": SLAKE,
    "SLAKE, 5 seeds": replace(SLAKE, seeds=5),
    "VQA-RAD, 3 seeds": VQA_RAD,
    "PathVQA, 3 seeds": PATH_VQA,
}
RULES = {"one number of seeds": 0, "twice, 6 trials watched": 6}
"""Name of a rule -> search trials by which it is decided; 0: it is not asked."""
COLUMNS = ("all trainings: covers", "false", "as claimed: covers", "false", "seen", "width")


def judged(world: World, watched: int, studies: int) -> dict[str, list[float]]:
    """Column, with its place -> its values in the studies."""
    drawn, found = np.random.default_rng(5), defaultdict[str, list[float]](list)
    groups = [f"{i}" for i in np.repeat(np.arange(world.images), world.questions)]
    for _ in range(studies):
        more = drawn.random() < 1 - (1 - RATE) ** watched
        seeds = world.seeds * (TIMES_IF_DIVERGED if more else 1)
        lost_S = drawn.random(seeds) < RATE
        truths: list[float | Sequence[float]] = [
            [LEFT if lost else TRUTH for lost in lost_S],
            TRUTH,
        ]
        first, second = replace(world, seeds=seeds).answers(truths, drawn)
        correct = {"a": first, "b": second[: world.seeds]}
        scores = Scores(correct, groups, replicates=REPLICATES)
        (pair,) = compare(correct, groups, margin=1.0, scores=scores).pairs
        of_all, seen = 100 * RATE * (LEFT - TRUTH), bool(lost_S.any())
        for place, truth in ((0, of_all), (2, of_all if seen else 0.0)):
            held = pair.difference.low <= truth <= pair.difference.high
            false = pair.told_apart and pair.difference.mean * truth <= 0
            found[f"{place}"].append(float(held))
            found[f"{place + 1}"].append(float(false))
        found["4"].append(float(seen))
        found["5"].append((pair.difference.high - pair.difference.low) / 100)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="of each row")
    studies = parser.parse_args().studies
    print(f"{studies} studies a row\n\n| world | seeds | {' | '.join(COLUMNS)} |")
    print("|---|---" + "|---" * len(COLUMNS) + "|")
    for name, world in WORLDS.items():
        for rule, watched in RULES.items():
            found = judged(world, watched, studies)
            values = [percent(found[f"{place}"]) for place in range(len(COLUMNS))]
            cells = [f"{mean:.1f} ±{error:.1f}" for mean, error in values]
            print(f"| {name} | {rule} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
