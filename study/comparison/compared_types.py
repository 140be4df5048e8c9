"""What a comparison of studies finds, as values: everything that its page, tables and JSON show.

An arm is named ``STUDY/ARM`` here; neither name has a slash in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.analysis.result_types import ArmResult, letters_of
from study.statistics.score_types import ArmPair, Baselines, Claim, Estimate, Number, Scores

VERSION = 1
"""Version of ``comparison.json``."""


@dataclass(frozen=True, kw_only=True)
class ComparedStudy:
    """One of the studies that are compared."""

    study: str
    """Name of the study."""
    question: str
    """The question that its search space asks."""
    space: str
    """Search space."""
    model: str
    """Base model."""
    data: str
    """Dataset."""
    arms: tuple[str, ...]
    """Its confirmed arms by their own names, the best first."""
    searches: int
    """Independent searches of each arm."""
    trials: int
    """Trials of its search."""
    seconds: Number
    """Device-seconds of all its trials."""
    untuned: Scores | None
    """Scores of its base model as it is; None if they are not known."""
    command: str
    """Command that began it, without secrets."""
    majority: Scores
    """Scores of always giving its most frequent training answer of the answer type."""


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """How much two arms differ more with one base model than with another: a difference of
    differences."""

    first: str
    """Name of an arm that both studies have."""
    second: str
    """Name of another one."""
    study: str
    """Study in which ``first`` minus ``second`` is ``one``."""
    other_study: str
    """Study of another base model, in which it is ``other``."""
    one: float
    """Difference in the first study, in percentage points."""
    other: float
    """Difference in the other study, in percentage points."""
    difference: Estimate
    """``one`` minus ``other``, in percentage points."""
    p: float
    """Two-sided p-value of this difference of differences alone."""
    p_holm: float
    """P-value corrected for all interactions of the comparison."""
    seeds: int
    """Number of seeds (or searches) of the arm that has the fewest of the four."""
    shown: bool
    """Whether the two methods differ otherwise with one base model than with the other."""
    sentence: str
    """The finding in words."""


@dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """What several studies found on the same test questions."""

    version: int = VERSION
    verdict: str
    """The answer in a few sentences."""
    studies: tuple[ComparedStudy, ...]
    """The studies, as they were named."""
    differs: Mapping[str, Mapping[str, str]]
    """What the studies were done with that is not the same in all of them -> study -> its value."""
    notes: tuple[str, ...]
    """What a reader should know of how far the studies can be compared, each in a sentence."""
    test_digest: str
    """Digest of the test questions and their answers, which all studies share."""
    questions: int
    """Number of test questions."""
    units: int
    """Number of patients or images of the test split, which are taken as independent."""
    unit: str
    """``patients`` or ``images``."""
    margin: float
    """Difference in percentage points that does not matter."""
    decides: str
    """Column of a measure by which arms are compared."""
    claim: Claim
    """What the answer is about."""
    against: str | None = None
    """Name of the arm of each study of which each pair has one, as all studies declared; None: all
    pairs are compared."""
    shown: Mapping[str, str]
    """Column of a measure that tables show -> its title."""
    arms: tuple[ArmResult, ...]
    """Arms of all studies, the best first; those that were not confirmed come last."""
    comparisons: tuple[ArmPair, ...]
    """Comparison of each pair of confirmed arms, or of those with ``against``, also of one
    study."""
    leader: Estimate | None
    """Score of the best arm, by an estimate and an interval that allow for its having been chosen
    among the arms of all studies."""
    interactions: tuple[Interaction, ...]
    """Each pair of arms that two studies of different base models share."""

    @property
    def confirmed(self) -> list[ArmResult]:
        """The arms that have a score on the test split, the best first."""
        return [arm for arm in self.arms if arm.test]

    @property
    def letters(self) -> dict[str, str]:
        """Name of a confirmed arm -> its letters: arms that have one in common are not told apart.
        Empty for fewer than three arms, and where not all pairs are compared."""
        if self.against is not None:
            return {}
        return letters_of(self.confirmed, self.comparisons)

    @property
    def baselines(self) -> Baselines:
        """The majority baseline, if it is the same in all studies."""
        first, *others = (study.majority for study in self.studies)
        return Baselines(majority=first if all(o == first for o in others) else {}, untuned=None)

    @property
    def arm_numbers(self) -> dict[str, int]:
        """Name of an arm -> the number by which it has its colour, in the order of the studies."""
        order = [study.study for study in self.studies]
        names = sorted(
            (arm.arm for arm in self.arms), key=lambda arm: (order.index(arm.split("/")[0]), arm)
        )
        return {name: number for number, name in enumerate(names)}


def own_name(arm: str) -> str:
    """Name in its study of an arm of a comparison."""
    return arm.partition("/")[2]
