"""Compares two arms: one is better, they are equally good within a margin, or nothing can be said.

The numbers come from ``study.statistics.uncertainty``; here they become findings and sentences. The
margin is the difference, in percentage points, that the user said beforehand does not matter. The
p-values of all pairs of arms are corrected for one another (Holm). An arm is called better only if
that p-value is below 0.05 and the interval excludes zero. From one seed of an arm nothing follows:
its interval has no variation between seeds in it, and one of two equal arms would be called better
in 11 to 21% of studies.

That two arms are equally good, or one not worse, follows from the interval of their pair alone, and
is not corrected for the number of pairs: each errs in about 3% of studies at the margin, and one of
eleven in 17% (``python -m tests.benchmarks.margins``). The report says so beside its pairs.

A finding is about trainings that do not collapse where no seed of either arm collapsed: three seeds
of an arm that collapses with one in ten mostly show no collapse, and no interval can allow for what
they do not show. To say "better" only where no rate of collapse that is compatible with them (up to
63%) could turn the difference would forbid nearly every finding. So the verdict states the
condition with the finding, and the rate of collapse is a result of its own. Where a seed did
collapse, its loss is in the arm's mean and in the variance between seeds, and the finding is about
all trainings.

All questions together (``overall``) decide whether one arm is better, at the level of that test
alone. Types of questions are tested beside it: their p-values are also corrected for ``overall``
and for the other types. What they show where ``overall`` shows nothing is a lead and no finding, as
secondary endpoints are behind a gatekeeper that stays shut (Dmitrienko, Offen and Westfall 2003,
doi 10.1002/sim.1526). So one of two equal arms is called better in 5% of studies, not in the 11% of
three tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from study.statistics.power import MOST_SEEDS, MOST_TIMES, images_needed, range_of, seeds_needed
from study.statistics.score_types import Claim, Estimate, Finding, PairNumbers, PartComparison
from study.statistics.uncertainty import LEVEL, REPLICATES, Scores, holm
from study.statistics.variance_components import VarianceComponents

Array = np.ndarray[Any, Any]
FINEST = 30
"""Replicates for each pair of arms at least: with fewer, no p-value of many pairs would be below
0.05 once it is corrected for all of them."""
TYPES = (("open", "closed", "report"), ("yes_no", "other"))
"""Parts of the questions by their type, in two ways of dividing the questions."""


@dataclass(frozen=True, kw_only=True)
class Comparison(PairNumbers):
    """Comparison of arm ``first`` with arm ``second`` on the same questions."""

    first: str
    second: str
    claim: Claim = Claim.MODELS

    @property
    def told_apart(self) -> bool:
        """Whether one arm is better than the other. Of splits of one dataset no such claim is
        made."""
        excludes_zero = self.difference.low > 0 or self.difference.high < 0
        claims = self.seeds > 1 and self.claim is not Claim.SPLITS
        return claims and excludes_zero and self.p_holm < (100 - LEVEL) / 100

    @property
    def finding(self) -> Finding:
        """The finding about the pair."""
        low, high = sorted((self._higher.low, self._higher.high))
        if self.told_apart:
            return Finding.BETTER
        if self.seeds > 1 and self.claim is not Claim.SPLITS and low > -self.margin:
            return Finding.AS_GOOD if high < self.margin else Finding.NOT_WORSE
        return Finding.UNDECIDED

    def sentence(self) -> str:
        """The finding in words, with the difference."""
        d = self._higher
        turned = self.difference.mean < 0
        first, second = (self.second, self.first) if turned else (self.first, self.second)
        by = by_points(d, self.p_holm)
        margin = margin_in_words(self.margin)
        match self.finding:
            case Finding.BETTER:
                small = f", which is less than {margin}" if d.high < self.margin else ""
                return f"{first} is better than {second} by {by}{small}."
            case Finding.AS_GOOD:
                return (
                    f"{second} is not worse than {first} by more than {margin}, nor {first} than "
                    f"{second}: {first} is higher by {by}."
                )
            case Finding.NOT_WORSE:
                return (
                    f"{first} is not worse than {second} by more than {margin}, and may be better: "
                    f"it is higher by {by}."
                )
            case Finding.UNDECIDED if self.seeds < 2 or self.claim is Claim.SPLITS:
                return f"{first} is higher than {second} by {by}. {needed(self, self.claim)}"
            case Finding.UNDECIDED:
                return (
                    f"{first} and {second} cannot be told apart: {first} is higher by {by}. "
                    + needed(self, self.claim)
                )

    def result(self) -> PartComparison:
        """The comparison as results keep it: with its finding, without the names of its arms."""
        numbers = {field.name: getattr(self, field.name) for field in fields(PairNumbers)}
        return PartComparison(**numbers, finding=self.finding, sentence=self.sentence())

    @property
    def _higher(self) -> Estimate:
        """Score of the higher arm minus that of the lower, in percentage points."""
        d = self.difference
        return d if d.mean >= 0 else _turned(d)


def needed(found: PairNumbers, claim: Claim) -> str:
    """Number of seeds or questions that would tell a pair apart, in words."""
    if found.seeds < 2 and claim is Claim.METHODS:
        return "No arm is called better from one search, and of one arm only one was confirmed."
    if found.seeds < 2:
        return (
            "No arm is called better from one seed, whose interval lacks the variation between "
            "seeds: --resume NAME --seeds 3 adds seeds."
        )
    if claim is Claim.SPLITS:
        return not_of_splits(found.seeds)
    told = f"To tell {found.points_to_tell:.1f} points,"
    seeds, questions = found.seeds_needed, found.questions_needed
    unit = "searches" if claim is Claim.METHODS else "seeds"
    more = [
        f"{_more(seeds, found.seeds, found.seeds_range, unit)} an arm" if seeds else "",
        _more(questions, found.questions, found.questions_range, "questions") if questions else "",
    ]
    if not any(more):
        return (
            f"{told} neither {MOST_SEEDS} {unit} an arm nor {MOST_TIMES} times the questions "
            "would do: it takes more of both."
        )
    never = {
        (True, False): " (more questions alone would not do)",
        (False, True): f" (more {unit} alone would not do)",
    }.get((bool(seeds), bool(questions)), "")
    return f"{told} about {' or '.join(filter(None, more))} would be needed{never}."


def not_of_splits(splits: int) -> str:
    """Sentence on why several splits of one dataset claim nothing."""
    return (
        f"No arm is called better from {splits} splits of the same data: their test questions and "
        "training images overlap, and how much that hides is not known. --searches 3 on one split "
        "gives a claim about the methods trained on it."
    )


def higher(first: str, second: str, difference: Estimate, p: float) -> str:
    """Say which of two arms scores higher and by how much, without calling it better."""
    turned = difference.mean < 0
    name, d = (second, _turned(difference)) if turned else (first, difference)
    return f"{name} is higher by {by_points(d, p)}"


def margin_in_words(points: float) -> str:
    """The margin in words, as they follow "worse by more than"."""
    return f"the margin of {points:g} point{'' if points == 1 else 's'}"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What is said of arms that answered the same questions."""

    scores: dict[str, Estimate]
    """Arm -> its accuracy in percent."""
    best: Estimate
    """Accuracy of the best arm: estimate and interval that allow for its having been chosen."""
    pairs: list[Comparison]
    """Comparison of every pair of arms that is compared, in the order of the arms."""


def compare(
    correct: Mapping[str, Any],
    groups_Q: Sequence[str],
    *,
    margin: float,
    parts: int = 1,
    scores: Scores | None = None,
    claim: Claim = Claim.MODELS,
    against: str | Collection[str] | None = None,
) -> Compared:
    """Score arms, and compare every pair of them, or each with the arm (or arms) ``against``.

    Args:
        correct: arm -> credit of each answer of each seed's model, 1 if it is correct; shape
            (S, Q). If ``claim`` is about methods, it is the mean credit of each search's models.
        groups_Q: group of each question, such as its image: what is resampled as one.
        margin: difference that does not matter, in percentage points.
        parts: number of parts of the questions that will be corrected for one another; see
            ``over_parts``.
        scores: scores of the arms, if they are of another statistic than the mean of ``correct``.
        claim: what the comparison is about.
        against: arm, or arms, of which each pair has one; None: all pairs are compared. No pair is
            compared if none of them is in ``correct``.
    """
    pairs = pairs_of(correct, against)
    scores = scores or Scores(correct, groups_Q, replicates=max(REPLICATES, FINEST * len(pairs)))
    differences = [scores.difference(first, second) for first, second in pairs]
    adjusted, tests = holm([difference.p for difference in differences]), len(pairs) * parts
    comparisons = [
        Comparison(
            first=first,
            second=second,
            difference=difference.estimate,
            p=difference.p,
            p_holm=p_holm,
            margin=margin,
            claim=claim,
            seeds=difference.components.count_S,
            questions=len(groups_Q),
            **_power(difference.components, difference.estimate, len(groups_Q), margin, tests),
        )
        for (first, second), difference, p_holm in zip(pairs, differences, adjusted, strict=True)
    ]
    return Compared(
        scores={arm: scores.score(arm) for arm in correct}, best=scores.best(), pairs=comparisons
    )


def pairs_of(
    arms: Iterable[str], against: str | Collection[str] | None = None
) -> list[tuple[str, str]]:
    """Pairs of arms that are compared, in the order of the arms: all, or those that have the arm
    ``against``, or one of these arms."""
    pairs = [*itertools.combinations(arms, 2)]
    if against is None:
        return pairs
    references = {against} if isinstance(against, str) else {*against}
    return [pair for pair in pairs if not references.isdisjoint(pair)]


def holm_family(part: str, asked: Collection[str], decides: str = "overall") -> list[str]:
    """The parts that are corrected for one another when ``part`` is tested; ``part`` is the last.
    ``asked`` are the parts that have questions, and ``decides`` is the one that decides. Where that
    is another measure, ``overall`` is a type of question like others."""
    types = next((types for types in TYPES if part in types), ())
    if part == "overall" != decides:
        types = TYPES[0]
    others = [p for p in dict.fromkeys((decides, "overall", *types)) if p in asked and p != part]
    return [*(others if types else ()), part]


def over_parts(
    found: Mapping[str, Sequence[Comparison]], decides: str = "overall"
) -> dict[str, list[Comparison]]:
    """Correct types of questions for the part that ``decides`` and for one another (Holm), and
    leave that part.

    Args:
        found: part -> comparisons of all pairs, as ``compare`` returns them.
    """
    corrected = {}
    for part, comparisons in found.items():
        tested = [c.p for other in holm_family(part, found, decides) for c in found[other]]
        by_holm = holm(tested)[len(tested) - len(comparisons) :]
        corrected[part] = [
            replace(c, p_holm=p_holm) for c, p_holm in zip(comparisons, by_holm, strict=True)
        ]
    return corrected


def _power(
    components: VarianceComponents, difference: Estimate, questions: int, margin: float, tests: int
) -> dict[str, Any]:
    """The fields of ``Comparison`` about what more data would show."""
    points = max(abs(difference.mean), margin)

    def seeds(known: VarianceComponents) -> int | None:
        return seeds_needed(known, points, tests)

    def asked(known: VarianceComponents) -> int | None:
        images = images_needed(known, points, tests)
        return round(images * questions / known.count_C) if images else None

    return {
        "seeds_share": components.seeds_share,
        "points_to_tell": points,
        "seeds_needed": seeds(components),
        "questions_needed": asked(components),
        "seeds_range": range_of(seeds, components),
        "questions_range": range_of(asked, components),
    }


def _turned(difference: Estimate) -> Estimate:
    """Estimate of a difference with first and second arm exchanged."""
    return Estimate(mean=-difference.mean, low=-difference.high, high=-difference.low)


def by_points(d: Estimate, p: float) -> str:
    """A difference with its interval and p-value, in words."""
    told = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{d.mean:.1f} points ({LEVEL}% interval {d.low:+.1f} to {d.high:+.1f}, {told})"


def _more(needed: int, there: int, ends: tuple[int | None, int | None] | None, unit: str) -> str:
    """How many more are needed, with the range of that number where it is known."""
    text = f"{_round(needed - there):,} more {unit}"
    if ends is None:
        return text
    low, high = (None if end is None else f"{_round(max(end - there, 1)):,}" for end in ends)
    if low == high:
        return text
    return f"{text} ({f'{low} to {high}' if high else f'{low} or more, or no number'})"


def _round(count: int) -> int:
    """Round up to two digits: more would promise too much."""
    size = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // size) * size
