"""Groups of questions on which arms differ, as values of ``results.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.statistics.score_types import Estimate


@dataclass(frozen=True, kw_only=True)
class StratumPair:
    """The best arm minus another one on some of the questions."""

    first: str
    second: str
    difference: Estimate
    """In percentage points."""
    p: float
    """P-value of this comparison alone."""
    p_holm: float
    """P-value corrected for all groups of questions and pairs that were looked at."""


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Questions that are alike in one respect, and how the arms do on them."""

    field: str
    """The respect: ``question_type``, ``modality``, ``organ``, ``answer_type`` or ``length``."""
    value: str
    questions: int
    scores: Mapping[str, Estimate]
    """Arm -> what its answers earn, in percent."""
    pairs: tuple[StratumPair, ...]
    """The best arm of all questions against each other arm."""


@dataclass(frozen=True, kw_only=True)
class ContestedQuestion:
    """A question on which arms differ."""

    question_id: str
    question: str
    answer: str
    right: Mapping[str, float]
    """Arm -> what its answers earned, mean over seeds, in percent."""


@dataclass(frozen=True, kw_only=True)
class Strata:
    """Groups of questions on which the arms differ. They explain the verdict and add no finding."""

    groups: tuple[Stratum, ...]
    tests: int
    """Number of comparisons that were corrected for."""
    contested: tuple[ContestedQuestion, ...]
    """The questions on which arms differ most."""
