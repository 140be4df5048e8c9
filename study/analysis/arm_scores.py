"""Scores of the arms on one set of questions, with baselines and comparisons of all pairs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from study.analysis import strata
from study.analysis.result_types import ArmScore, DatasetResult
from study.analysis.special_scores import measured
from study.config.settings import ACCURACY
from study.statistics import pairwise, uncertainty
from study.statistics.pairwise import Compared
from study.statistics.score_types import (
    NOTHING,
    ArmPair,
    Baselines,
    Claim,
    Estimate,
    PartComparison,
    Score,
)
from study.statistics.strata_types import Strata
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import TrialRecord
from trainables.data.common.wording import BRIEF
from trainables.measures.common.baselines import majority_baseline
from trainables.measures.common.deciding import Deciding
from trainables.measures.common.parts import CHOICE, PARTS, part_of
from trainables.measures.common.scores import columns, shown_columns

if TYPE_CHECKING:
    from trainables.data.common.dataset import Example

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """Scores and compares the arms, by the answers of their confirmed trials."""

    study_folder: StudyFolder
    """The study's files."""
    confirmed: Mapping[str, Sequence[TrialRecord]]
    """Arm -> its complete confirmations, one for each seed."""
    untuned: Sequence[TrialRecord]
    """Trials that scored the untuned model; none, or one for each prompt."""
    train: Sequence[Example]
    """Training examples, from which the majority baseline takes its answers."""
    margin: float
    """Difference that does not matter, in percentage points."""
    deciding: Deciding | None = None
    """Measure by which arms are compared; None: accuracy, or what answers earn."""
    searches: int = 1
    """Independent searches of each arm. If there are several, a search counts as one seed: what
    its confirmations score as a mean."""
    against: str | None = None
    """Arm with which each other arm is compared; None: all pairs are compared."""

    def score_dataset(self, name: str, data: str, examples: Sequence[Example]) -> DatasetResult:
        """Scores on the test split of a dataset, the best arm first.

        Args:
            name: name under which answers are stored.
            data: name of the dataset.
            examples: the questions that were answered, in the same order.
        """
        correct = {
            arm: credits_of(self.study_folder, records, name, self.searches)
            for arm, records in self.confirmed.items()
            if records
        }
        images_Q = np.asarray([example.unit for example in examples])
        by = self.deciding if self.deciding and self.deciding.places(examples) else None
        decides = ACCURACY if by is None else by.column
        places = slice(None) if by is None else by.places(examples)
        means = {arm: float(correct_SQ[:, places].mean()) for arm, correct_SQ in correct.items()}
        resampled = None
        if by is not None and decides not in PARTS and correct:
            first = {arm: [r.spec.id for r in records] for arm, records in self._first.items()}
            resampled = measured.resampled(self.study_folder, first, by, name, examples)
            means = {arm: float(found.scores_S.mean()) for arm, found in resampled.arms.items()}
        ranked = sorted(correct, key=lambda arm: -means[arm])
        arms = {arm: dict.fromkeys(PARTS, NOTHING) for arm in ranked}
        claim = Claim.METHODS if self.searches > 1 else Claim.MODELS
        compared: dict[str, Compared] = {}
        if ranked:
            compared = compare_parts(
                {arm: correct[arm] for arm in ranked},
                examples,
                margin=self.margin,
                claim=claim,
                by=by,
                resampled=resampled,
                against=self.against,
            )
        for part, found in compared.items():
            for arm, estimate in found.scores.items():
                arms[arm][part] = _score(estimate)
        choosing_Q = part_of(CHOICE, examples)
        if ranked and choosing_Q.any() and decides != CHOICE:
            chosen = {arm: correct[arm][:, choosing_Q] for arm in ranked}
            choices = uncertainty.Scores(chosen, images_Q[choosing_Q].tolist())
            for arm in ranked:
                arms[arm][CHOICE] = _score(choices.score(arm))
        majority = majority_baseline(self.train, examples)
        shown = shown_columns(majority)
        if by is not None:
            shown = {decides: by.title} | shown
            majority[decides] = measured.of_majority(by, self.train, examples)
        for measure, column in columns().items():
            in_tables = column.title or column.of == "reports"
            if measure in majority and measure not in (*PARTS, CHOICE, decides) and in_tables:
                for arm in ranked:
                    # Trials of an earlier version may lack what is not made of answers alone.
                    each = [scores_of(record, name).get(measure) for record in self.confirmed[arm]]
                    values = [value for value in each if value is not None]
                    if len(values) == len(each):
                        arms[arm][measure] = Score(mean=float(np.mean(values)))
        return DatasetResult(
            data=data,
            arms=tuple(ArmScore(arm=arm, test=test) for arm, test in arms.items()),
            shown=shown,
            baselines=self._baselines(majority, name, by, examples),
            leader=compared[decides].best if len(ranked) > 1 else None,
            comparisons=arm_pairs(compared, decides),
        )

    def strata(self, ranked: Sequence[str], examples: Sequence[Example]) -> Strata | None:
        """Groups of test questions on which the arms differ; ``ranked`` are their names, the best
        first."""
        correct = {
            arm: credits_of(self.study_folder, self.confirmed[arm], "test", self.searches)
            for arm in ranked
        }
        return strata.strata(correct, examples, self.against)

    @property
    def _first(self) -> dict[str, list[TrialRecord]]:
        """Arm -> its confirmations that are independent: of several searches the first of each."""
        return {
            arm: [same[0] for same in alike(records, self.searches)]
            for arm, records in self.confirmed.items()
        }

    def _baselines(
        self,
        majority: Mapping[str, float],
        name: str,
        by: Deciding | None,
        examples: Sequence[Example],
    ) -> Baselines:
        """Scores of models that no arm tuned, on the split ``name``."""

        def scored(record: TrialRecord | None) -> dict[str, float] | None:
            if record is None:
                return None
            scores = scores_of(record, name)
            if by is not None:
                given = measured.given(self.study_folder, record.spec.id, name, by)
                scores[by.column] = math.nan if given is None else by.value(given, examples)
            return scores

        strict, short = map(scored, by_prompt(self.untuned))
        return Baselines(
            majority=majority,
            untuned=strict,
            untuned_lenient=lenient(strict),
            untuned_brief=short,
            untuned_brief_lenient=lenient(short),
        )


def compare_parts(
    correct: Mapping[str, Array],
    examples: Sequence[Example],
    *,
    margin: float,
    claim: Claim,
    by: Deciding | None = None,
    resampled: uncertainty.Scores | None = None,
    against: str | Collection[str] | None = None,
) -> dict[str, Compared]:
    """Compare arms on each part of the questions that has any, and by the measure that decides.

    Args:
        correct: arm -> credit of each answer, as ``credits_of`` returns it; shape (S, Q).
        examples: the Q questions.
        margin: difference that does not matter, in percentage points.
        claim: what the comparison is about.
        by: the measure that decides; None: accuracy, or what answers earn.
        resampled: scores by that measure, if it is no part of the questions.
        against: arm, or arms, of which each pair that is compared has one; None: all pairs are
            compared.
    """
    decides = ACCURACY if by is None else by.column
    groups_Q = np.asarray([example.unit for example in examples])
    asked = {part: part_of(part, examples) for part in PARTS}
    asked = {part: asked_Q for part, asked_Q in asked.items() if asked_Q.any()}
    compared = {
        part: pairwise.compare(
            {arm: correct_SQ[:, asked_Q] for arm, correct_SQ in correct.items()},
            groups_Q[asked_Q].tolist(),
            margin=margin,
            claim=claim,
            against=against,
            parts=len(pairwise.holm_family(part, {*asked, decides}, decides)),
        )
        for part, asked_Q in asked.items()
    }
    if by is not None and resampled is not None:
        compared[decides] = pairwise.compare(
            correct,
            groups_Q[by.places(examples)].tolist(),
            margin=margin,
            claim=claim,
            against=against,
            scores=resampled,
        )
    return compared


def arm_pairs(compared: Mapping[str, Compared], decides: str) -> tuple[ArmPair, ...]:
    """Pairs of arms with their comparisons on each part, corrected for one another; ``compared`` is
    what ``compare_parts`` returned."""
    pairs: dict[tuple[str, str], dict[str, PartComparison]] = {}
    found = {part: each.pairs for part, each in compared.items()}
    for part, comparisons in pairwise.over_parts(found, decides).items():
        for comparison in comparisons:
            pair = pairs.setdefault((comparison.first, comparison.second), {})
            pair[part] = comparison.result()
    return tuple(
        ArmPair(first=first, second=second, parts=parts, decides=decides)
        for (first, second), parts in pairs.items()
    )


def by_prompt(untuned: Sequence[TrialRecord]) -> tuple[TrialRecord | None, TrialRecord | None]:
    """The untuned model asked as the arms are, and the one asked for a bare answer; None for one
    that there is not."""
    brief = [r for r in untuned if r.spec.training.get("prompt") == BRIEF]
    as_arms = [r for r in untuned if r not in brief] or brief
    return next(iter(as_arms), None), next((r for r in brief if r not in as_arms), None)


def lenient(scores: Mapping[str, float] | None) -> dict[str, float] | None:
    """Scores by the lenient rule, as far as it differs from the strict one."""
    if scores is None or f"lenient_{PARTS[0]}" not in scores:
        return None
    return {part: scores.get(f"lenient_{part}", value) for part, value in scores.items()}


def _score(estimate: Estimate) -> Score:
    return Score(mean=estimate.mean, low=estimate.low, high=estimate.high)


def scores_of(record: TrialRecord, name: str) -> dict[str, float]:
    """Measure -> score of a trial on the split ``name``."""
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in record.scores.items() if k.startswith(start)}


def credits_of(
    study_folder: StudyFolder, records: Sequence[TrialRecord], name: str, searches: int = 1
) -> Array:
    """Credit of each answer to the questions ``name`` that the confirmed models of an arm gave, 0
    to 1; shape (S, Q). If there are several searches of each arm, S counts those, and the credit is
    the mean over a search's models."""

    def credit(record: TrialRecord) -> Array:
        return np.asarray(answers.read(study_folder, record.spec.id, name)["credit"])

    return np.stack(
        [np.mean([credit(record) for record in same], axis=0) for same in alike(records, searches)]
    )


def alike(records: Sequence[TrialRecord], searches: int) -> list[list[TrialRecord]]:
    """Confirmations of an arm whose models count as one: those of one search, or each alone."""
    if searches == 1:
        return [[record] for record in records]
    found: dict[str, list[TrialRecord]] = {}
    for record in records:
        found.setdefault(record.spec.arm, []).append(record)
    return [*found.values()]
