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

With ``--searched N`` it plays whole studies: whether the arm has twice the seeds is what the rule
says of a search by the project's own scheduler (``unsteady.play``, N searches of each surface and
kind of collapse), whose trials collapse as often as seeds do. The same studies are judged with the
rule and without it; *twice* are those in which it acts, and *mended* and *spoilt* those in which
"better" is false only without it, and only with it, as the verdict claims it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from study.config.budget import TIMES_IF_COLLAPSED, TIMES_IF_DIVERGED
from study.statistics.pairwise import compare
from study.statistics.uncertainty import Scores
from tests.benchmarks.claims import LEFT, PATH_VQA, REPLICATES, SLAKE, VQA_RAD, percent
from tests.benchmarks.coverage import World
from tests.benchmarks.surfaces import all_surfaces, judging_surfaces
from tests.benchmarks.unsteady import KINDS, play

Array = np.ndarray[Any, Any]
Values = tuple[float, ...]
"""A value of each of ``COLUMNS``."""
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
SEARCHED = ("SLAKE, 3 seeds", "PathVQA, 3 seeds")
"""Worlds of the studies whose searches are played."""
RATES = (0.1, 0.3)
"""Shares of trainings that collapse in them, in search trials and seeds."""
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
        values = said(first, second[: world.seeds], groups, RATE, seen=bool(lost_S.any()))
        for place, value in enumerate(values):
            found[f"{place}"].append(value)
    return found


def said(
    first_SQ: Array, second_SQ: Array, groups: Sequence[str], rate: float, *, seen: bool
) -> tuple[float, ...]:
    """A value of each of ``COLUMNS`` for a study.

    Args:
        first_SQ: answers of the arm of whose trainings a share ``rate`` collapses.
        second_SQ: answers of the other arm.
        groups: image of each question.
        rate: share of the first arm's trainings that collapse.
        seen: whether a seed of the first arm collapsed.
    """
    correct = {"a": first_SQ, "b": second_SQ}
    scores = Scores(correct, groups, replicates=REPLICATES)
    (pair,) = compare(correct, groups, margin=1.0, scores=scores).pairs
    difference, of_all = pair.difference, 100 * rate * (LEFT - TRUTH)
    values = []
    for truth in (of_all, of_all if seen else 0.0):
        values.append(float(difference.low <= truth <= difference.high))
        values.append(float(pair.told_apart and difference.mean * truth <= 0))
    return (*values, float(seen), (difference.high - difference.low) / 100)


def called_unsteady(rate: float, searches: int) -> list[bool]:
    """Whether arms of whose trainings a share ``rate`` collapses are called unsteady: of each
    surface and kind of collapse so many searches."""
    surfaces = [*all_surfaces(), *judging_surfaces()]
    return [
        play(surface, kind, repetition, rate=rate)[0]
        for surface in surfaces
        for kind in KINDS
        for repetition in range(searches)
    ]


def print_searched(studies: int, searches: int) -> None:
    """Print what the rule changes in whole studies, for several rates of collapse."""
    columns = ("twice", *COLUMNS, "mended", "spoilt")
    print(f"{studies} studies a row\n\n| world | collapses | rule | {' | '.join(columns)} |")
    print("|---|---|---" + "|---" * len(columns) + "|")
    for rate in RATES:
        pool = called_unsteady(rate, searches)
        for name in SEARCHED:
            world, drawn = WORLDS[name], np.random.default_rng(7)
            groups = [f"{i}" for i in np.repeat(np.arange(world.images), world.questions)]
            plain, ruled, called = list[Values](), list[Values](), list[float]()
            most = world.seeds * TIMES_IF_COLLAPSED
            for _ in range(studies):
                called.append(float(drawn.choice(pool)))
                lost_S = drawn.random(most) < rate
                each = [LEFT if lost else TRUTH for lost in lost_S]
                first, second = replace(world, seeds=most).answers([each, TRUTH], drawn)
                second = second[: world.seeds]
                few = bool(lost_S[: world.seeds].any())
                plain.append(said(first[: world.seeds], second, groups, rate, seen=few))
                ruled.append(
                    said(first, second, groups, rate, seen=bool(lost_S.any()))
                    if called[-1]
                    else plain[-1]
                )
            claimed = COLUMNS.index("as claimed: covers") + 1
            without, by_rule = (np.array([v[claimed] for v in vs]) for vs in (plain, ruled))
            changed = _cells([(without > by_rule).tolist(), (by_rule > without).tolist()])
            before = ["", *_cells([*zip(*plain, strict=True)]), "", ""]
            after = [*_cells([called, *zip(*ruled, strict=True)]), *changed]
            for rule, cells in (("none", before), ("by the search", after)):
                print(f"| {name} | {100 * rate:.0f}% | {rule} | {' | '.join(cells)} |", flush=True)


def _cells(columns: Sequence[Sequence[float]]) -> list[str]:
    """Percentages with two standard errors, as texts."""
    return [f"{mean:.1f} ±{error:.1f}" for mean, error in map(percent, columns)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="of each row")
    parser.add_argument("--searched", type=int, help="searches of each surface and kind")
    given = parser.parse_args()
    studies = given.studies
    if given.searched:
        print_searched(studies, given.searched)
        return
    print(f"{studies} studies a row\n\n| world | seeds | {' | '.join(COLUMNS)} |")
    print("|---|---" + "|---" * len(COLUMNS) + "|")
    for name, world in WORLDS.items():
        for rule, watched in RULES.items():
            found = judged(world, watched, studies)
            cells = _cells([found[f"{place}"] for place in range(len(COLUMNS))])
            print(f"| {name} | {rule} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
