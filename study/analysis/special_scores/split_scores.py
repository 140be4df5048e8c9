"""Scores of the arms over repeated splits of one dataset (``--splits``), with baselines and
comparisons of all pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from study.analysis.arm_scores import arm_pairs, by_prompt, lenient, scores_of
from study.analysis.result_types import ArmScore, DatasetResult
from study.statistics import pairwise
from study.statistics.pairwise import Compared, Comparison
from study.statistics.repeated_splits import OverSplits, over_splits
from study.statistics.score_types import NOTHING, Baselines, Claim, Score
from study.statistics.uncertainty import holm
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import TrialRecord
from trainables.measures.common.baselines import majority_baseline
from trainables.measures.common.parts import PARTS, part_of
from trainables.measures.common.scores import columns, shown_columns

if TYPE_CHECKING:
    from trainables.data.common.dataset import Dataset

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class SplitScores:
    """Scores and compares the arms, by the answers of their confirmed trials in each split."""

    study_folder: StudyFolder
    """The study's files."""
    confirmed: Mapping[str, Sequence[TrialRecord]]
    """Arm -> its complete confirmations in all splits."""
    untuned: Sequence[TrialRecord]
    """Trials that scored the untuned model in each split; none, or one for each split and
    prompt."""
    splits: Sequence[Dataset]
    """Data as each split divides them; K of them."""
    margin: float
    """Difference that does not matter, in percentage points."""
    against: str | None = None
    """Arm with which each other arm is compared; None: all pairs are compared."""

    def score(self) -> DatasetResult:
        """Scores on the test splits, the best arm first. An arm that was not confirmed in every
        split has none: its mean would be over other questions than the others'."""
        whole = {
            arm: records
            for arm, records in self.confirmed.items()
            if {record.spec.split for record in records} == {*range(len(self.splits))}
        }
        asked = {part: [part_of(part, dataset.test) for dataset in self.splits] for part in PARTS}
        asked = {part: each for part, each in asked.items() if all(q.any() for q in each)}
        values = {
            arm: {part: self._values(records, each) for part, each in asked.items()}
            for arm, records in whole.items()
        }
        ranked = sorted(values, key=lambda arm: -values[arm][PARTS[0]].mean())
        majorities = [majority_baseline(data.train, data.test) for data in self.splits]
        arms: dict[str, dict[str, Score]] = {arm: dict.fromkeys(PARTS, NOTHING) for arm in ranked}
        for arm in ranked:
            for part, values_K in values[arm].items():
                found = self._over(values_K, least=0.0).estimate
                arms[arm][part] = Score(mean=found.mean, low=found.low, high=found.high)
            for measure, column in columns().items():
                told = column.title or column.of == "reports"
                if measure in majorities[0] and measure not in PARTS and told:
                    each = [scores_of(record, "test").get(measure) for record in whole[arm]]
                    means = [value for value in each if value is not None]
                    if len(means) == len(each):
                        arms[arm][measure] = Score(mean=float(np.mean(means)))
        compared = {
            part: self._compared({arm: values[arm][part] for arm in ranked}, part, each)
            for part, each in asked.items()
            if len(ranked) > 1
        }
        return DatasetResult(
            data=self.splits[0].name,
            arms=tuple(ArmScore(arm=arm, test=test) for arm, test in arms.items()),
            shown=shown_columns(majorities[0]),
            baselines=self._baselines(majorities),
            comparisons=arm_pairs(compared, PARTS[0]) if compared else (),
        )

    @property
    def tested_per_trained(self) -> float:
        """Test questions for each training question, as a mean over splits."""
        return float(np.mean([len(data.test) / len(data.train) for data in self.splits]))

    def _values(self, records: Sequence[TrialRecord], asked_KQ: Sequence[Array]) -> Array:
        """Accuracy in percent of an arm's models in each split, on the questions that are
        ``asked_KQ`` there; shape (K,)."""
        found: list[list[float]] = [[] for _ in self.splits]
        for record in records:
            credit_Q = np.asarray(answers.read(self.study_folder, record.spec.id, "test")["credit"])
            split = record.spec.split
            found[split].append(100 * float(credit_Q[asked_KQ[split]].mean()))
        return np.array([np.mean(each) for each in found])

    def _over(self, values_K: Array, *, least: float = -100.0) -> OverSplits:
        return over_splits(values_K, self.tested_per_trained, least=least)

    def _compared(
        self, values: Mapping[str, Array], part: str, asked_KQ: Sequence[Array]
    ) -> Compared:
        """Comparison of all pairs on one part of the questions."""
        pairs = pairwise.pairs_of(values, self.against)
        found = [self._over(values[first] - values[second]) for first, second in pairs]
        corrected = holm([each.p for each in found])
        return Compared(
            scores={},
            best=self._over(next(iter(values.values())), least=0.0).estimate,
            pairs=[
                Comparison(
                    first=first,
                    second=second,
                    difference=each.estimate,
                    p=each.p,
                    p_holm=p_holm,
                    margin=self.margin,
                    claim=Claim.SPLITS,
                    seeds=len(self.splits),
                    questions=round(np.mean([asked_Q.sum() for asked_Q in asked_KQ])),
                    seeds_share=each.own_share,
                    points_to_tell=max(abs(each.estimate.mean), self.margin),
                    seeds_needed=None,
                    questions_needed=None,
                )
                for (first, second), each, p_holm in zip(pairs, found, corrected, strict=True)
            ],
        )

    def _baselines(self, majorities: Sequence[Mapping[str, float]]) -> Baselines:
        """Scores of models that no arm tuned, as means over splits."""
        of_split = [
            by_prompt([record for record in self.untuned if record.spec.split == split])
            for split in range(len(self.splits))
        ]
        strict, short = map(self._untuned, zip(*of_split, strict=True))
        return Baselines(
            majority=mean_of(majorities),
            untuned=strict,
            untuned_lenient=lenient(strict),
            untuned_brief=short,
            untuned_brief_lenient=lenient(short),
        )

    def _untuned(self, records: Sequence[TrialRecord | None]) -> dict[str, float] | None:
        """Mean scores of the untuned model, asked in one way; None if a split lacks them."""
        scored = [scores_of(record, "test") for record in records if record is not None]
        return mean_of(scored) if len(scored) == len(self.splits) else None


def mean_of(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each score that all of ``scores`` have."""
    names = [name for name in scores[0] if all(name in each for each in scores)]
    return {name: float(np.mean([each[name] for each in scores])) for name in names}
