"""Scores and comparisons of arms as values, which ``study.analysis.result_types`` is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar

Number = int | float
"""A number that stays an int if it was one, so that tables show it as it was measured."""
Scores = Mapping[str, float | None]
"""Name of a score, which is a column of a measure in ``trainables/measures`` -> its value; None if
there is nothing to measure. Its unit is percent unless the measure says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95% interval, in percent or percentage points."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score of an arm on one column of a measure, with its 95% interval, in the column's unit."""

    mean: float | None = None
    """Mean over seeds; None if there is nothing to measure."""
    low: float | None = None
    """Lower end of the interval; None for a measure of a whole set of reports, which has none."""
    high: float | None = None
    """Upper end of the interval; None for a measure of a whole set of reports, which has none."""

    @property
    def interval(self) -> Estimate | None:
        """Mean and interval; None if there is no interval."""
        if self.mean is None or self.low is None or self.high is None:
            return None
        return Estimate(mean=self.mean, low=self.low, high=self.high)


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """How often an arm's training collapses, and what the arm scores where it does not. The two are
    kept apart, as in a hurdle model, since their mean describes neither."""

    seeds: int
    """Number of confirmations that completed or diverged."""
    collapsed: int
    """Number of these that collapsed (``study.analysis.collapses``), by divergence too."""
    rate: Estimate
    """Rate of collapse in percent, with its exact bounds."""
    otherwise: Estimate | None
    """Score of the seeds that did not collapse, on all questions; None if none did, or all."""


NOTHING = Score()
"""Score of a part without questions."""


class Claim(StrEnum):
    """What the findings about pairs of arms are about."""

    MODELS = "models"
    """The models that were tuned: the variation between searches of an arm is in no interval."""
    METHODS = "methods"
    """The methods, each tuned with such a budget: each arm was searched several times, and how far
    apart its searches end is in the intervals."""
    SPLITS = "splits"
    """No claim: what several splits of the data showed is described. No arm is called better, since
    no interval over splits of one dataset holds wherever scores depend on which images were trained
    on (``tests/benchmarks/RESULTS.md``)."""


class Finding(StrEnum):
    """Finding about a pair of arms."""

    BETTER = "better"
    """One arm is better than the other."""
    AS_GOOD = "as_good"
    """Neither arm is worse than the other by more than the margin."""
    NOT_WORSE = "not_worse"
    """The arm that scores higher is not worse by more than the margin; it may be better."""
    UNDECIDED = "undecided"
    """The arms cannot be told apart, and either may be worse by more than the margin."""


@dataclass(frozen=True, kw_only=True)
class PairNumbers:
    """Numbers of a pair of arms that answered the same questions."""

    difference: Estimate
    """First arm minus second, in percentage points."""
    p: float
    """Two-sided p-value of this pair alone."""
    p_holm: float
    """P-value corrected for the other pairs; of a type of question, also for other parts."""
    margin: float
    """Difference in percentage points that does not matter."""
    seeds: int
    """Number of seeds of each arm; of the arm with the fewest."""
    questions: int
    """Number of questions."""
    seeds_share: float
    """Share of the uncertainty that more seeds could remove; 0 to 1."""
    points_to_tell: float
    """Difference in points that ``seeds_needed`` and ``questions_needed`` would show: the one that
    was found, or the margin if that is larger."""
    seeds_needed: int | None
    """Seeds of each arm that would show that difference on these questions, in 8 of 10 studies;
    None if no number would."""
    questions_needed: int | None
    """Questions that would show that difference with these seeds, in 8 of 10 studies; None if no
    number would."""
    seeds_range: tuple[int | None, int | None] | None = None
    """Middle 80% of ``seeds_needed``, which is no better known than the variance of few seeds; None
    in results of earlier versions."""
    questions_range: tuple[int | None, int | None] | None = None
    """Middle 80% of ``questions_needed``; None in results of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class PartComparison(PairNumbers):
    """Comparison of two arms on one part of the questions."""

    finding: Finding
    """The finding about the pair; see ``study.statistics.pairwise``."""
    sentence: str
    """The finding in words, with the difference."""


@dataclass(frozen=True, kw_only=True)
class ArmPair:
    """Comparison of two arms."""

    first: str
    """Name of the arm that scores higher."""
    second: str
    """Name of the arm that scores lower."""
    parts: Mapping[str, PartComparison]
    """Part of the questions (``overall``, ``open``, ...) -> the comparison on it. A part other than
    the one that decides gives a lead where that shows nothing."""
    decides: str = "overall"
    """The part, or the column of another measure (``--measure``), that decides."""

    @property
    def deciding(self) -> PartComparison:
        """The comparison that decides."""
        return self.parts[self.decides]


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Scores of models that no arm tuned. Arms are compared by the strict rule alone; the untuned
    model, which may answer in sentences, is also scored by its first words
    (``trainables.measures.lenient``)."""

    majority: Scores
    """Scores of always giving the most frequent training answer of the answer type."""
    untuned: Scores | None
    """Scores of the base model as it is; None if they could not be computed."""
    untuned_lenient: Scores | None = None
    """Scores of the untuned model's answers by their first words; None in results of earlier
    versions."""
    untuned_brief: Scores | None = None
    """Scores of the base model, asked for a single word or phrase; None if its family does not
    follow instructions."""
    untuned_brief_lenient: Scores | None = None
    """Scores of the brief answers by their first words."""

    def named(self) -> dict[str, Scores]:
        """Name -> scores of the baselines that there are. Lenient ones are left out where they are
        the strict ones."""
        found = {"majority": self.majority, "untuned": self.untuned}
        found |= {"untuned_lenient": _unlike(self.untuned_lenient, self.untuned)}
        found |= {
            "untuned_brief": self.untuned_brief,
            "untuned_brief_lenient": _unlike(self.untuned_brief_lenient, self.untuned_brief),
        }
        return {name: scores for name, scores in found.items() if scores}


def _unlike(scores: Scores | None, others: Scores | None) -> Scores | None:
    """``scores`` if they have a value that ``others`` have otherwise."""
    if scores is None or others is None:
        return None
    differ = any(v != others.get(n) and v == v for n, v in scores.items())  # nan is like nan
    return scores if differ else None


class WithColumns:
    """Base of values with columns of their own names, which JSON has beside the fixed fields."""

    columns: ClassVar[str]
    """Name of the field that maps a column's name to its value."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let pydantic gather the columns into their field before it checks the fields."""
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(cls._gathered, handler(source))

    @classmethod
    def _gathered(cls, row: Any) -> Any:
        """A row of ``results.json``, with its columns in their field."""
        if not isinstance(row, dict):
            return row
        fixed = {f.name for f in fields(cls)} - {cls.columns}  # type: ignore[arg-type]  # a mixin
        kept = {name: value for name, value in row.items() if name in fixed}
        return kept | {cls.columns: {n: v for n, v in row.items() if n not in fixed}}
