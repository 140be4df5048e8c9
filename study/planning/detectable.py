"""What a study can show, before it runs: the smallest difference and the smallest margin.

It follows from the numbers of test questions, images, seeds and arms, and from what is supposed of
arms, since nothing is known of them yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from study.statistics.power import (
    images_needed,
    seeds_needed,
    smallest_difference,
    smallest_margin,
)
from study.statistics.repeated_splits import smallest_over_splits
from study.statistics.variance_components import VarianceComponents
from trainables.data.common.splits import TESTED_PER_TRAINED

DISAGREE = 0.20
"""Share of test questions that only one of two tuned models answers rightly."""
WITHIN = 0.1
"""Correlation of these between questions about one image."""
OF_SEEDS, OF_SEARCHES = 1.5, 2.5
"""Standard deviation in points between an arm's seeds, and between its searches."""
MORE_SPLITS = 10
"""Number of splits of which it is said what they would show."""
MODERATED, LENT = 5, 10.0
"""Number of arms from which on their variances moderate each other, and degrees of freedom that
they are supposed to add then."""


@dataclass(frozen=True, kw_only=True)
class StudySize:
    """What decides how much a study can show."""

    questions: int
    """Questions of the test split."""
    images: int
    """Images of the test split."""
    arms: int
    seeds: int
    """Confirmations of each arm's search."""
    searches: int = 1
    splits: int = 1
    """Divisions of the data, each with so many test questions; not several beside several
    searches."""
    tested_per_trained: float = TESTED_PER_TRAINED
    """Test questions of a division for each training question."""
    against: bool = False
    """Whether each arm is compared with one of them alone."""

    @property
    def components(self) -> VarianceComponents:
        """Variance of a difference between two arms, as it is supposed to be."""
        together = 1 + (self.questions / self.images - 1) * WITHIN
        several = max(self.searches, self.splits) > 1
        between = ((OF_SEARCHES if several else OF_SEEDS) / 100) ** 2
        moderated = self.arms >= MODERATED
        return VarianceComponents(
            count_S=max(self.searches, self.splits) if several else self.seeds,
            count_C=self.images,
            images=DISAGREE * together * self.images / self.questions,
            seeds=(between, between),
            both=(0.0, 0.0),
            borrowed=(LENT, LENT) if moderated else (),
            lenders=self.arms if moderated else 0,
        )

    @property
    def tests(self) -> int:
        """Number of pairs of arms, for which a test is corrected."""
        others = self.arms - 1
        return max(others if self.against else self.arms * others // 2, 1)

    @property
    def claim(self) -> str:
        """What the answer will be about, and what a stronger claim would cost."""
        if self.splits > 1:
            return "nothing is claimed: what the splits of these data showed is described"
        if self.searches > 1:
            return "how the methods differ, each tuned with this budget"
        return (
            "how these tuned models differ, and not the methods, since the luck of one search is "
            "in no interval; --searches 3 compares the methods, for three times the trials and "
            "trainings"
        )

    @property
    def text(self) -> str:
        """What can be shown in 8 of 10 studies, and what would halve it."""
        if self.splits > 1:
            return self._of_splits
        known, unit = self.components, "searches" if self.searches > 1 else "seeds"
        if known.count_S < 2:
            return (
                f"no difference: with one seed an arm none is called better; --{unit} 3 has three"
            )
        least = smallest_difference(known, self.tests)
        seeds = seeds_needed(known, least / 2, self.tests)
        images = images_needed(known, least / 2, self.tests)
        more = [f"{seeds} {unit}"] if seeds else []
        more += [f"{images / known.count_C:.1f} times the questions"] if images else []
        more = more or [self._of_both(least / 2, unit)]
        return (
            f"differences from {least:.1f} points, and arms as good to within "
            f"{smallest_margin(known):.1f}, in 8 of 10 studies; "
            f"halved by {' or '.join(more)}"
        )

    @property
    def _of_splits(self) -> str:
        """Differences of which the interval over splits leaves out zero in 8 of 10 studies."""
        known = self.components
        variance = known.images / known.count_C + sum(known.seeds)
        counts = sorted({self.splits, max(self.splits, MORE_SPLITS)})
        least, *less = (smallest_over_splits(variance, n, self.tested_per_trained) for n in counts)
        return (
            "no arm to be better, since no interval over splits of the same data is sure to hold; "
            f"that of a difference of {least:.1f} points leaves out zero in 8 of 10 studies"
            + "".join(f", and of {points:.1f} with {MORE_SPLITS} splits" for points in less)
        )

    def _of_both(self, points: float, unit: str) -> str:
        """Numbers of seeds (or searches) and of questions that together show ``points``."""
        known = self.components
        for times in range(2, 100):
            larger = replace(known, count_S=times * known.count_S, count_C=times * known.count_C)
            if smallest_difference(larger, self.tests) <= points:
                return f"{larger.count_S} {unit} with {times} times the questions"
        return "no number of both"

    @property
    def supposing(self) -> str:
        """What is supposed of arms."""
        unit, apart = ("searches", OF_SEARCHES) if self.searches > 1 else ("seeds", OF_SEEDS)
        if self.splits > 1:
            unit, apart = "splits, beside that,", OF_SEARCHES
        return (
            f"if two arms differ on {DISAGREE:.0%} of questions and an arm's {unit} by {apart:g} "
            "points (standard deviation)"
        )
