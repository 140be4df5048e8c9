"""What a declared reference and a step-down correction gain over all pairs and Holm's method.

Made-up studies (the worlds of ``coverage.py``) in each of which some arms are ahead of the others
by as much. The same studies are judged four ways: all pairs of arms or each arm with one reference
that is not ahead (``--against``), corrected by Holm or by step-down with shared resampling.

*False*: studies that call an arm better than one that it is not better than. *Found*: arms that are
ahead and are called better than the reference. Both in percent with two standard errors.

Step-down (Westfall and Young 1993, *Resampling-Based Multiple Testing*, algorithm 2.8; Romano and
Wolf 2005, doi 10.1198/016214504000000539): the smallest p-value is compared with the smallest of
all pairs' p-values in studies of equal arms, the next one with the smallest of the rest, and so on.
Such studies are the replicates by which the p-values are computed anyway: arms are exchanged on the
same images for all pairs, and each arm has luck of seeds of its own, which is in all its pairs.

``python -m tests.benchmarks.families [--studies 400] [--only PART] [--arms N]`` prints a row for
each world.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.statistics.pairwise import FINEST, pairs_of
from study.statistics.uncertainty import LEVEL, Difference, Scores, holm
from tests.benchmarks.claims import percent
from tests.benchmarks.coverage import World

Array = np.ndarray[Any, Any]
TRUTH = 0.65
"""Accuracy of the arms that are not ahead."""
REFERENCE = "0"
"""Arm with which the others are compared."""
WAYS = ("all pairs, Holm", "all pairs, step-down", "reference, Holm", "reference, step-down")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A kind of study."""

    name: str
    world: World
    arms: int
    ahead: int = 0
    """Number of arms that are ahead."""
    by: float = 0.05
    """How far they are ahead."""


SLAKE = World(images=96, questions=11, of_seed=0.045)
ROWS = (
    Row(name="SLAKE, none ahead", world=SLAKE, arms=12),
    Row(name="SLAKE, one 5 points ahead", world=SLAKE, arms=12, ahead=1),
    Row(name="SLAKE, six 5 points ahead", world=SLAKE, arms=12, ahead=6),
    Row(
        name="seeds 3 points apart, none ahead",
        world=World(images=96, questions=11, of_seed=0.135),
        arms=12,
    ),
    Row(
        name="2 seeds, none ahead",
        world=World(images=96, questions=11, of_seed=0.045, seeds=2),
        arms=5,
    ),
    Row(
        name="seeds 3 points apart, none ahead",
        world=World(images=96, questions=11, of_seed=0.135),
        arms=4,
    ),
    *(Row(name="by arms, none ahead", world=SLAKE, arms=arms) for arms in (5, 11, 23)),
    *(
        Row(name="by arms, two 7 points ahead", world=SLAKE, arms=arms, ahead=2, by=0.07)
        for arms in (5, 11, 23)
    ),
    Row(
        name="VQA-RAD, two 8 points ahead",
        world=World(images=203, questions=2, of_seed=0.045),
        arms=5,
        ahead=2,
        by=0.08,
    ),
)


def step_down(
    scores: Scores,
    pairs: Sequence[tuple[str, str]],
    found: Sequence[Difference],
    drawn: np.random.Generator,
) -> list[float]:
    """P-values of pairs, corrected by step-down with the replicates that the pairs share."""
    replicates = len(scores._normal_R)
    normal_RA = drawn.standard_normal((replicates, len(scores.arms)))
    places = {arm: place for place, arm in enumerate(scores.arms)}
    chances_RP = np.empty((replicates, len(pairs)))
    # What other arms lend is known or unknown to all that borrow it at the same time.
    lent_R: Array | None = None
    unsure_RA = np.ones_like(normal_RA)
    for (first, second), difference in zip(pairs, found, strict=True):
        known = difference.components
        for arm, lent in zip((first, second), known.borrowed, strict=True):
            free = min(lent + known.count_S - 1, known.lenders * (known.count_S - 1) or 1)
            if lent and lent_R is None:
                lent_R = drawn.chisquare(free, replicates) / free
            own = known.count_S - 1
            unsure_RA[:, places[arm]] = (
                lent_R if lent and lent_R is not None else drawn.chisquare(own, replicates) / own
            )
    for number, ((first, second), difference) in enumerate(zip(pairs, found, strict=True)):
        known, ends = difference.components, (places[first], places[second])
        of_seeds_R2 = np.sqrt(np.array(known.seeds) / known.count_S) * normal_RA[:, ends]
        moved_R = scores._swapped_RP[:, scores._pairs[first, second]] + np.subtract(*of_seeds_R2.T)
        variance_R = known.variance(10**9, known.count_C) + sum(
            each / known.count_S * unsure_RA[:, end]
            for each, end in zip(known.seeds, ends, strict=True)
        )
        statistic_R = np.abs(moved_R) / np.sqrt(np.maximum(variance_R, 1e-30))
        order = np.argsort(-statistic_R, kind="stable")
        chances_RP[order, number] = np.arange(1, replicates + 1) / (1 + replicates)
    p_P = np.array([difference.p for difference in found])
    ranked = np.argsort(p_P, kind="stable")
    smallest_RP = np.minimum.accumulate(chances_RP[:, ranked[::-1]], axis=1)[:, ::-1]
    corrected, so_far = [0.0] * len(pairs), 0.0
    for place, pair in enumerate(ranked):
        as_small = np.count_nonzero(smallest_RP[:, place] <= p_P[pair] + 1e-12)
        so_far = max(so_far, p_P[pair], (1 + as_small) / (1 + replicates))
        corrected[pair] = min(so_far, 1.0)
    return corrected


def judged(row: Row, studies: int) -> dict[str, tuple[list[bool], list[float]]]:
    """Way -> whether each study says something false, and the share of arms that it finds."""
    drawn, world = np.random.default_rng(0), row.world
    groups = [f"{i}" for i in np.repeat(np.arange(world.images), world.questions)]
    names = [str(arm) for arm in range(row.arms)]
    better = names[row.arms - row.ahead :]
    truths = [TRUTH + row.by * (name in better) for name in names]
    replicates = max(1_000, FINEST * len(pairs_of(names)))
    counted: dict[str, tuple[list[bool], list[float]]] = {way: ([], []) for way in WAYS}
    for _ in range(studies):
        answers = world.answers(truths, drawn)
        scores = Scores(dict(zip(names, answers, strict=True)), groups, replicates=replicates)
        every = {pair: scores.difference(*pair) for pair in pairs_of(names)}
        for way, (false, told) in counted.items():
            pairs = pairs_of(names, REFERENCE if way.startswith("reference") else None)
            found = [every[pair] for pair in pairs]
            corrected = (
                holm([difference.p for difference in found])
                if way.endswith("Holm")
                else step_down(scores, pairs, found, drawn)
            )
            said = {
                pair if difference.estimate.mean > 0 else pair[::-1]
                for pair, difference, p in zip(pairs, found, corrected, strict=True)
                if p < (100 - LEVEL) / 100
                and (difference.estimate.low > 0 or difference.estimate.high < 0)
            }
            false.append(any(truths[int(a)] <= truths[int(b)] for a, b in said))
            told.append(float(np.mean([float((a, REFERENCE) in said) for a in better] or [0.0])))
    return counted


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=400, help="of each world")
    parser.add_argument("--only", default="", help="part of the names of the worlds")
    parser.add_argument("--arms", type=int, help="worlds of so many arms alone")
    given = parser.parse_args()
    print(f"{given.studies} studies a row\n")
    columns = [f"{what}: {way}" for what in ("false", "found") for way in WAYS]
    print(f"| world | arms | {' | '.join(columns)} |")
    print("|---|---" * 1 + "|---" * len(columns) + "|")
    for row in ROWS:
        if given.only not in row.name or given.arms not in (None, row.arms):
            continue
        counted = judged(row, given.studies)
        false = [f"{m:.1f} ±{e:.1f}" for m, e in (percent(counted[way][0]) for way in WAYS)]
        found = [f"{m:.1f} ±{e:.1f}" for m, e in (percent(counted[way][1]) for way in WAYS)]
        found = found if row.ahead else [""] * len(WAYS)
        print(f"| {row.name} | {row.arms} | {' | '.join([*false, *found])} |", flush=True)


if __name__ == "__main__":
    main()
