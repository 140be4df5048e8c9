"""What whole studies claim, and how often it is so: for many arms, for methods, for the best arm.

Studies are made up. A model's true accuracy is what its arm can do, less what its search failed to
find (``searches.py``, on surfaces that no default was chosen by) and, in some worlds, less what it
lost because its seed collapsed. Its answers are those of ``coverage.World``. What is said of them
is said by the product's own ``pairwise.compare``.

*Covers*: 95% intervals of a pair's difference that hold the truth. *False*: studies that call an
arm better than one that it is not better than, corrected by Holm. *Found*: pairs in which an arm
that is ahead is called better. *Best*: intervals of the best arm's accuracy that hold its truth, by
the interval that allows for its having been chosen, and by the plain one. A claim about models is
judged by the models' own truths, one about methods by what the methods' searches reach on average;
where no such claim is made, the figure stands in brackets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from study.statistics.pairwise import compare
from study.statistics.score_types import Claim
from study.statistics.uncertainty import Scores
from tests.benchmarks.coverage import World
from tests.benchmarks.searches import AFTER, Pools
from tests.benchmarks.surfaces import judging_surfaces

REPLICATES = 500
LEFT = 0.30
"""Accuracy of a model whose seed collapsed."""
HALF_NORMAL = 1.645
"""90th percentile of a half-normal distribution, in units of the root of its mean square."""
AIM_COVERS, AIM_FALSE = (93.0, 97.0), 5.0
"""Percent of intervals that should hold the truth, and of studies that may say something false."""
SLAKE = World(images=96, questions=11, of_seed=0.045)
PATH_VQA = World(images=858, questions=8, of_seed=0.045)
VQA_RAD = World(images=203, questions=2, of_seed=0.045)
IU_XRAY = World(images=590, questions=1, of_seed=0.045)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A kind of study."""

    name: str
    world: World = SLAKE
    arms: int = 2
    truth: float = 0.65
    """Accuracy of every arm, when it is tuned to its end."""
    surface: str = ""
    """Surface of which each arm's searches are; empty: all are tuned to their end."""
    trials: int = 24
    """Trials of each search."""
    claim: Claim = Claim.MODELS
    collapses: float = 0.0
    """Share of the first arm's seeds that collapse."""
    ahead: float = 0.0
    """How much better than the others the first arm is."""

    @property
    def replicates(self) -> int:
        """Replicates that leave p-values of many pairs room to be small enough for Holm."""
        return min(max(REPLICATES, 30 * self.arms * (self.arms - 1)), 10_000)


@dataclass(kw_only=True)
class Counts:
    """What was counted in the studies of a row."""

    covers: list[float] = field(default_factory=list)
    """Share of a study's pairs whose interval holds the difference that is claimed."""
    of_methods: list[float] = field(default_factory=list)
    """Width and coverage of the interval of the difference between methods, which is not always
    claimed."""
    false: list[bool] = field(default_factory=list)
    false_of_methods: list[bool] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    """Share of the other arms from which a study tells the first, where that is ahead."""
    width: list[float] = field(default_factory=list)
    best: list[bool] = field(default_factory=list)
    best_plain: list[bool] = field(default_factory=list)


def rows() -> list[Row]:
    """All rows of the table."""
    found = []
    for arms in (2, 5, 12, 23):
        for seeds in (2, 3):
            world = World(images=96, questions=11, of_seed=0.045, seeds=seeds)
            found.append(Row(name=f"SLAKE, {seeds} seeds", world=world, arms=arms))
    wide = World(images=96, questions=11, of_seed=0.135)
    found += [
        Row(name="SLAKE, seeds 3 points apart", world=wide, arms=5),
        Row(name="SLAKE, 3 seeds, one 5 points ahead", arms=12, ahead=0.05),
        Row(name="VQA-RAD, 3 seeds", world=VQA_RAD),
        Row(name="PathVQA, 3 seeds", world=PATH_VQA),
        Row(name="IU-Xray, 3 seeds", world=IU_XRAY),
        Row(name="accuracy of 2%, 3 seeds", truth=0.02),
        Row(name="10 seeds", world=World(images=96, questions=11, of_seed=0.135, seeds=10)),
        Row(name="1 seed", world=World(images=96, questions=11, of_seed=0.135, seeds=1)),
        Row(name="1 seed in 10 of one arm collapses", collapses=0.1),
    ]
    for surface in (each.name for each in judging_surfaces()):
        for name, claim in (("1 search", Claim.MODELS), ("3 searches", Claim.METHODS)):
            found.append(Row(name=f"{surface}, {name}", surface=surface, claim=claim))
        found.append(
            Row(
                name=f"{surface}, PathVQA, 3 searches",
                surface=surface,
                claim=Claim.METHODS,
                world=PATH_VQA,
            )
        )
    for arms in (5, 12, 23):
        found.append(
            Row(
                name="crossed, 3 searches of 6",
                surface="crossed",
                claim=Claim.METHODS,
                trials=6,
                arms=arms,
            )
        )
    return found


def measure(
    row: Row, studies: int, pools: Pools, seed: int = 0, replicates: int | None = None
) -> Counts:
    """Make up studies and count."""
    drawn, found, world = np.random.default_rng(seed), Counts(), row.world
    groups = [f"{i}" for i in np.repeat(np.arange(world.images), world.questions)]
    lost_N = np.array([one.lost for one in pools.of(row.surface, row.trials)]) / 100
    reached = row.truth - (lost_N.mean() if row.surface else 0.0)
    for _ in range(studies):
        # The models of one search share its luck; each of several searches has its own.
        each = world.seeds if row.claim is Claim.METHODS else 1
        truths_AS = np.full((row.arms, each), row.truth)
        truths_AS[0] += row.ahead
        if row.surface:
            truths_AS = truths_AS - drawn.choice(lost_N, (row.arms, each))
        truths_AS = np.broadcast_to(truths_AS, (row.arms, world.seeds))
        rate_A = np.where(np.arange(row.arms) == 0, row.collapses, 0.0)
        models_A = truths_AS.mean(axis=1) * (1 - rate_A) + LEFT * rate_A
        lost_AS = drawn.random(truths_AS.shape) < rate_A[:, None]
        answers = world.answers([list(t) for t in np.where(lost_AS, LEFT, truths_AS)], drawn)
        correct = {str(arm): correct_SQ for arm, correct_SQ in enumerate(answers)}
        compared = compare(
            correct,
            groups,
            margin=1.0,
            claim=row.claim,
            scores=Scores(correct, groups, replicates=replicates or row.replicates),
        )
        truths_A = models_A if row.claim is Claim.MODELS else np.full(row.arms, reached)
        inside, methods, false, false_of_methods = [], [], False, False
        for pair in compared.pairs:
            first, second = int(pair.first), int(pair.second)
            difference, truth = pair.difference, 100 * (truths_A[first] - truths_A[second])
            inside.append(difference.low <= truth <= difference.high)
            methods.append(difference.low <= 0 <= difference.high)
            if pair.told_apart:
                false |= difference.mean * truth <= 0
                false_of_methods = True
        found.covers.append(float(np.mean(inside)))
        found.of_methods.append(float(np.mean(methods)))
        found.false.append(false)
        found.false_of_methods.append(false_of_methods)
        of_first = [pair for pair in compared.pairs if pair.first == "0"]
        told = [pair.told_apart and pair.difference.mean > 0 for pair in of_first]
        found.told.append(float(np.mean(told)))
        found.width.append(
            float(np.mean([p.difference.high - p.difference.low for p in compared.pairs]))
        )
        best = max(compared.scores, key=lambda arm: compared.scores[arm].mean)
        plain, truth = compared.scores[best], 100 * truths_A[int(best)]
        found.best.append(compared.best.low <= truth <= compared.best.high)
        found.best_plain.append(plain.low <= truth <= plain.high)
    return found


def percent(values: Sequence[float]) -> tuple[float, float]:
    """Mean of shares in percent, and its Monte-Carlo error (two standard errors)."""
    share = float(np.mean(values))
    return 100 * share, 200 * float(np.std(values)) / math.sqrt(len(values))


def holds(counts: Counts) -> bool:
    """Whether the aims lie within the Monte-Carlo error of what was measured: of the differences,
    of the best arm's score, and of false "better"."""
    false, of_false = percent(counts.false)
    within = _reaches(counts.covers) and _reaches(counts.best)
    return within and false - of_false <= AIM_FALSE


def _reaches(values: Sequence[float]) -> bool:
    """Whether the aim of coverage lies within the Monte-Carlo error of these shares, which is that
    of the rule of three at least: where all studies hold, two standard errors are none."""
    covers, error = percent(values)
    error = max(error, 300 / len(values))
    return AIM_COVERS[0] <= covers + error and covers - error <= AIM_COVERS[1]


def main(
    studies: int,
    searches: int,
    file: Path | None,
    only: str | None = None,
    arms: int | None = None,
) -> None:
    """Print the table."""
    parts = only.split("|") if only else [""]
    chosen = [row for row in rows() if any(part in row.name for part in parts)]
    chosen = [row for row in chosen if arms in (None, row.arms)]
    pools = Pools(file)
    for surface in judging_surfaces():
        if any(row.surface == surface.name for row in chosen):
            for repetition in range(searches):
                pools.grow(surface, repetition)
    if any(row.surface for row in chosen):
        print_luck(pools)
    print(f"\n{studies} studies a row; each figure with two standard errors\n")
    print(
        "| world | arms | claim | covers | false | methods: covers | false | found | width "
        "| best covers | plainly | holds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in chosen:
        counts = measure(row, studies, pools)
        if row.world.seeds < 2:
            claim, verdict = "none", "no claim"
        else:
            claim, verdict = row.claim, "yes" if holds(counts) else "**no**"
        methods = ["", ""]
        if row.surface and row.claim is Claim.MODELS:
            methods = [f"[{_text(counts.of_methods)}]", f"[{_text(counts.false_of_methods)}]"]
        cells = [
            *(row.name, row.arms, claim, _text(counts.covers), _text(counts.false), *methods),
            _text(counts.told) if row.ahead else "",
            *(f"{np.mean(counts.width):.1f}", _text(counts.best), _text(counts.best_plain)),
            verdict,
        ]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_luck(pools: Pools, studies: int = 20_000) -> None:
    """Print how often two equal arms, each searched once, are called different if what a search
    says that it left (``study.search.arm_gains``) is added to the variance of each: as the mean
    square of a half-normal distribution whose 90th percentile is the upper end that was said.

    Errors of the models themselves are normal, of a known standard deviation: 2 points (SLAKE's
    size) or 0.7 (PathVQA's).
    """
    drawn = np.random.default_rng(0)
    print(
        "\n| surface | trials | lost | said | below the bound | false: SLAKE, plain | with luck "
        "| PathVQA, plain | with luck |\n|---|---|---|---|---|---|---|---|---|"
    )
    for surface, trials in product((each.name for each in judging_surfaces()), AFTER):
        known = [one for one in pools.of(surface, trials) if one.said is not None]
        if not known:  # the surface is in none of the rows that were asked for
            continue
        lost_N = np.array([one.lost for one in known])
        high_N = np.array([one.said.high for one in known if one.said])
        first, second = drawn.integers(0, len(known), (2, studies))
        cells = []
        for sd in (2.0, 0.7):
            found = lost_N[second] - lost_N[first] + sd * drawn.standard_normal(studies)
            of_search = (high_N / HALF_NORMAL) ** 2
            wide = np.sqrt(sd**2 + of_search[first] + of_search[second])
            cells += [np.abs(found) > 1.96 * sd, np.abs(found) > 1.96 * wide]
        said = float(np.mean([one.said.mean for one in known if one.said]))
        shares = " | ".join(f"{100 * cell.mean():.1f}" for cell in cells)
        below = 100 * float((lost_N <= high_N).mean())
        print(
            f"| {surface} | {trials} | {lost_N.mean():.2f} | {said:.2f} | {below:.0f} | {shares} |"
        )


def _text(values: Sequence[float]) -> str:
    mean, error = percent(values)
    return f"{mean:.1f} ±{error:.1f}"
