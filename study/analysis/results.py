"""Collects what a study found, from its records and stored answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from search_spaces.declare import Space
from study.analysis import blind, collapses, efficiency, importance
from study.analysis.arm_scores import ArmScores, by_prompt, scores_of
from study.analysis.efficiency_types import Efficiency, FrontTrial
from study.analysis.result_types import (
    ArmResult,
    BestTrial,
    RungResult,
    SeedScores,
    StudyResults,
    TrialResult,
)
from study.analysis.results_file import without_nan
from study.analysis.special_scores.split_scores import SplitScores
from study.analysis.verdict import answer
from study.config import goals, spaces
from study.config.settings import ACCURACY
from study.statistics.score_types import Claim, Estimate
from study.storage.study_folder import StudyFolder
from study.trials.colours import arm_numbers
from study.trials.gain import RemainingGain
from study.trials.record import Outcome, TrialRecord
from study.trials.searches import arm_of, search_of
from study.trials.spec import Kind
from trainables.measures.common.deciding import deciding
from trainables.measures.common.scores import VERSION as SCORING
from trainables.measures.common.scores import logged_name

if TYPE_CHECKING:
    from trainables.data.common.dataset import Dataset

BYTES = 4
"""Bytes of a trained parameter, which is kept in fp32 whatever the precision of the rest."""


@dataclass(frozen=True, kw_only=True)
class FinishedTrials:
    """The trials of a study that has come to its end, and what the study asked of them."""

    space: Space
    objectives: tuple[str, ...]
    """Costs that the search minimised beside the loss; see ``study.config.goals``."""
    records: Sequence[TrialRecord]
    """All trials, the oldest first."""
    best: Mapping[str, TrialRecord]
    """Name of a search -> its trial whose settings were confirmed."""
    gains: Mapping[str, RemainingGain] | None
    """Name of a search -> what more search may still bring it; without those of which too little is
    known. None if the study's search is not one of which this is estimated."""
    searches: int = 1
    """Independent searches of each arm, which ``space`` has as arms; see
    ``study.trials.searches``."""
    splits: Sequence[Dataset] = ()
    """Data as each split divides them, if each search is in its own (``--splits``)."""
    diverged_at: Mapping[str, float] = field(default_factory=dict)
    """Arm that was confirmed with more seeds -> lowest learning rate at which a search trial of it
    diverged."""
    collapsed_at: Mapping[str, float] = field(default_factory=dict)
    """Arm that was confirmed with more seeds -> lowest learning rate at which a search trial of it
    collapsed."""

    @property
    def arms(self) -> list[str]:
        """Arms, each once, in the order of the space."""
        return list(dict.fromkeys(map(self.arm_of, self.space.arms)))

    def arm_of(self, name: str) -> str:
        """Arm that is searched under a name."""
        return arm_of(name, self.searches)

    def best_of(self, arm: str) -> TrialRecord | None:
        """Trial of the lowest loss of those whose settings were confirmed; None if there is none.
        Of several splits of the data, whose losses are of other questions, it is that of the
        first."""
        found = [record for name, record in self.best.items() if self.arm_of(name) == arm]
        if self.splits:
            found = [record for record in found if record.spec.split == 0]
        return min(found, key=lambda record: record.loss, default=None)

    def of_kind(self, kind: Kind) -> list[TrialRecord]:
        """The trials of one kind, the oldest first."""
        return [record for record in self.records if record.spec.kind is kind]


def collect(
    name: str,
    study_folder: StudyFolder,
    trials: FinishedTrials,
    dataset: Dataset,
    others: Mapping[str, Dataset],
    protocol: Mapping[str, Any],
    *,
    margin: float,
    measure: str = ACCURACY,
) -> StudyResults:
    """Results of a study, from the journal and the stored answers.

    Args:
        name: name of the study.
        study_folder: the study's files.
        others: datasets on which confirmed trials were scored too, by name.
        protocol: what ``study.planning.provenance.describe`` returns.
        margin: difference that does not matter, in percentage points.
        measure: column of a measure, or a file with one, by which arms are compared.
    """
    space = trials.space
    several = len(trials.splits) > 1
    complete = [r for r in trials.records if r.outcome is Outcome.COMPLETE]
    confirmed = {
        arm: [
            r for r in complete if r.spec.kind is Kind.CONFIRM and trials.arm_of(r.spec.arm) == arm
        ]
        for arm in trials.arms
    }
    untuned = [r for r in complete if r.spec.kind is Kind.UNTUNED]
    scored = ArmScores(
        study_folder=study_folder,
        confirmed=confirmed,
        untuned=untuned,
        train=dataset.train,
        margin=margin,
        deciding=None if measure == ACCURACY else deciding(measure),
        searches=trials.searches,
        against=protocol.get("against"),
    )
    test = (
        SplitScores(
            study_folder=study_folder,
            confirmed=confirmed,
            untuned=untuned,
            splits=trials.splits,
            margin=margin,
            against=scored.against,
        ).score()
        if several
        else scored.score_dataset("test", dataset.name, dataset.test)
    )
    scores = {arm.arm: arm.test for arm in test.arms}
    decides = ACCURACY if scored.deciding is None else scored.deciding.column
    arms = [
        replace(
            _arm(arm, trials, confirmed[arm], study_folder, dataset),
            test=scores.get(arm),
            decides=decides,
        )
        for arm in trials.arms
    ]
    errors: dict[str, str] = {}
    for record in trials.of_kind(Kind.SEARCH):
        if record.outcome is Outcome.FAILED:
            errors.setdefault(trials.arm_of(record.spec.arm), record.error)
    order = list(scores)
    arms.sort(key=lambda arm: order.index(arm.arm) if arm.test else len(order))
    majority = test.baselines.majority[decides]
    assert majority is not None, "no score of the baseline: the test split has no question"
    claim = Claim.METHODS if trials.searches > 1 else Claim.MODELS
    claim = Claim.SPLITS if several else claim
    found = StudyResults(
        scoring=SCORING,
        study=name,
        question=space.question,
        verdict=answer(
            arms,
            test.comparisons,
            majority,
            errors,
            margin,
            estimated=trials.gains is not None,
            claim=claim,
            against=[scored.against] if scored.against else [],
        ),
        decides=decides,
        claim=claim,
        searches=trials.searches,
        shown=test.shown,
        baselines=test.baselines,
        arms=tuple(arms),
        comparisons=test.comparisons,
        leader=test.leader,
        strata=None if several else scored.strata(order, dataset.test),
        ood=tuple(
            scored.score_dataset(f"ood.{data}", data, other.test) for data, other in others.items()
        ),
        efficiency=_efficiency(arms, trials, untuned),
        trials=tuple(_trial(record, trials) for record in trials.records),
        protocol=dict(protocol),
    )
    plain: StudyResults = without_nan(found)
    return plain


def metrics(results: StudyResults) -> dict[str, float]:
    """The metrics of a study's run in MLflow, such as ``lora.test.overall_percent``."""
    found = {
        logged_name(f"{arm.arm}.test.{column}"): score.mean
        for arm in results.confirmed
        for column, score in (arm.test or {}).items()
    }
    for name, scores in results.baselines.named().items():
        found |= {logged_name(f"{name}.test.{column}"): v for column, v in scores.items()}
    if (leader := results.leader) is not None:
        name = f"{results.arms[0].arm}.test.{results.decides}_as_the_best"
        found |= {f"{name}{end}_percent": v for end, v in _ends(leader).items()}
    for other in results.ood:
        for tested in other.arms:
            for column, score in tested.test.items():
                found[logged_name(f"{tested.arm}.ood.{other.data}.{column}")] = score.mean
    for arm in results.arms:
        for way, blinded in arm.blind.items():
            found[logged_name(f"{arm.arm}.{way}.overall")] = blinded.score
        if (gain := arm.may_gain) is not None:
            name = f"{arm.arm}.may_gain_{gain.unit}"
            found |= {name: gain.mean, f"{name}_low": gain.low, f"{name}_high": gain.high}
    return {key: value for key, value in found.items() if value is not None}


def _arm(
    arm: str,
    trials: FinishedTrials,
    confirmed: list[TrialRecord],
    study_folder: StudyFolder,
    dataset: Dataset,
) -> ArmResult:
    """The result of one arm, without its scores on the test split."""
    searched, tested = (
        [r for r in trials.of_kind(kind) if trials.arm_of(r.spec.arm) == arm]
        for kind in (Kind.SEARCH, Kind.CONFIRM)
    )
    costs: dict[str, float] = {}
    if confirmed:
        costs = {key: _mean([r.costs[key] for r in confirmed]) for key in confirmed[0].costs}
        costs["adapter_mib"] = costs["trained_parameters"] * BYTES / 2**20
    best = trials.best_of(arm)
    splits = trials.splits or (dataset,)
    several = len(splits) > 1
    collapsed = collapses.collapsed(
        study_folder, confirmed, searched, lambda r: splits[r.spec.split]
    )
    # What is measured by question is measured in the first split.
    first = [record for record in confirmed if record.spec.split == 0]
    searches = 1 if several else trials.searches
    return ArmResult(
        arm=arm,
        number=arm_numbers(trials.space.declared)[arm],
        trials=_outcomes(searched),
        confirmations=_outcomes(tested),
        search_seconds=sum(r.costs.get("seconds", 0.0) for r in searched),
        best=None
        if best is None
        else BestTrial(
            trial=best.spec.id,
            parameters=dict(best.spec.parameters),
            validation_loss=best.loss,
            examples_seen=best.examples_seen,
        ),
        seeds=tuple(
            SeedScores(seed=r.spec.seed, trial=r.spec.id, scores=scores_of(r, "test"))
            for r in confirmed
        ),
        collapsed=bool(collapsed),
        collapse=collapses.rate(
            study_folder, tested, collapsed, None if several else dataset, searches
        ),
        costs=costs,
        blind=blind.blind_scores(study_folder, first, dataset.test, searches),
        calibration=blind.calibration(study_folder, first, dataset.test, searches),
        may_gain=(trials.gains or {}).get(best.spec.arm) if best else None,
        diverged_at=trials.diverged_at.get(arm),
        collapsed_at=trials.collapsed_at.get(arm),
    )


def _outcomes(records: Sequence[TrialRecord]) -> dict[Outcome, int]:
    """Outcome -> number of trials."""
    counts = Counter(record.outcome for record in records)
    return {outcome: counts[outcome] for outcome in Outcome}


def _efficiency(
    arms: Sequence[ArmResult], trials: FinishedTrials, untuned: list[TrialRecord]
) -> Efficiency:
    """What the scores of the arms cost."""
    searched: dict[str, list[TrialRecord]] = {arm.arm: [] for arm in arms}
    for record in trials.of_kind(Kind.SEARCH):
        searched[trials.arm_of(record.spec.arm)].append(record)
    costs = trials.objectives
    front = goals.pareto_front(trials.records, costs) if costs else []
    as_arms, _ = by_prompt(untuned)
    start = as_arms.scores.get("validation.overall", 0.0) if as_arms else 0.0
    return Efficiency(
        pareto=efficiency.pareto(arms),
        budget=efficiency.budget_curves(searched, start),
        front=tuple(
            FrontTrial(
                trial=record.spec.id,
                arm=trials.arm_of(record.spec.arm),
                parameters=dict(record.spec.parameters),
                validation_loss=record.loss,
                validation_percent=record.scores.get("validation.overall"),
                costs={name: record.costs[name] for name in costs},
            )
            for record in front
        ),
        learning_rates=efficiency.learning_rates(searched),
        importance=importance.importances(
            searched, {arm: spaces.ranges(trials.space.arms[arm]) for arm in trials.arms}
        ),
    )


def _trial(record: TrialRecord, trials: FinishedTrials) -> TrialResult:
    """The result of one trial."""
    spec = record.spec
    return TrialResult(
        trial=spec.id,
        kind=spec.kind,
        arm=trials.arm_of(spec.arm),
        search=spec.split or search_of(spec.arm, trials.searches),
        parameters=dict(spec.parameters),
        recipe={slot: dict(tuning) for slot, tuning in spec.recipe.items()},
        lr=spec.lr,
        batch_size=spec.batch_size,
        training=dict(spec.training),
        seed=spec.seed,
        outcome=record.outcome,
        error=record.error,
        remark=record.remark,
        rungs=tuple(
            RungResult(**{each.name: getattr(rung, each.name) for each in fields(RungResult)})
            for rung in record.rungs
        ),
        scores=record.scores,
        costs=record.costs,
    )


def _ends(estimate: Estimate) -> dict[str, float]:
    """Ending of a metric's name -> the mean or an end of its interval."""
    return {"": estimate.mean, "_low": estimate.low, "_high": estimate.high}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
