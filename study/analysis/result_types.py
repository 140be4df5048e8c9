"""Results of a study as values: everything that report, tables, terminal and exports show.

``study.analysis.results_file`` writes them as ``results.json``, version 2, and reads them. The
fields are the keys of that file, in its order. A number that could not be computed, such as the
accuracy of a part without questions, is None, which JSON writes as null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt

from study.analysis.efficiency_types import Efficiency
from study.statistics.letters import letters
from study.statistics.score_types import (
    ArmPair,
    Baselines,
    Claim,
    Collapse,
    Estimate,
    Finding,
    Number,
    Score,
    Scores,
    WithColumns,
)
from study.statistics.strata_types import Strata
from study.trials.colours import arm_numbers
from study.trials.gain import RemainingGain
from study.trials.record import Outcome
from study.trials.spec import Kind
from trainables.data.common.wording import DEFAULT_ASKING
from trainables.models.common.quantisation import BaseBits
from trainables.training.regime import CHOOSE

VERSION = 2
"""Version of ``results.json`` that this code writes; it reads older ones too."""


@dataclass(frozen=True, kw_only=True)
class SeedScores(WithColumns):
    """Scores on the test split of one complete confirmation of an arm."""

    columns: ClassVar[str] = "scores"
    seed: int
    trial: str
    """Id of the trial."""
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class BestTrial:
    """The search trial of an arm whose settings were confirmed."""

    trial: str
    """Id of the trial."""
    parameters: Mapping[str, Any]
    """Name of a searched parameter -> its value."""
    validation_loss: float | None
    """Validation loss of the trial at its last rung."""
    examples_seen: int
    """Training examples that the trial had seen at its last rung."""


@dataclass(frozen=True, kw_only=True)
class BlindScore:
    """Score of an arm on test questions that were asked of other images than their own."""

    score: float
    """Mean over seeds, in percent."""
    gain: Estimate
    """What the questions' own images gain, in percentage points."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Closed answers of like confidence."""

    confidence: float
    """Mean probability of the likeliest answer, in percent."""
    accuracy: float
    """Share of the likeliest answers that are right, in percent."""
    answers: int
    """Number of answers, of all seeds."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How an arm's confidence in closed answers compares with their accuracy."""

    error: float
    """Expected calibration error in percent, mean over seeds."""
    low: float | None = None
    """Lower end of its 95% interval; None in results of earlier versions."""
    high: float | None = None
    """Upper end of its 95% interval; None in results of earlier versions."""
    bins: tuple[ReliabilityBin, ...]
    """Answers by intervals of confidence, the lowest first."""

    @property
    def text(self) -> str:
        """The error with its interval, if it has one."""
        if self.low is None or self.high is None:
            return f"{self.error:.1f}%"
        return f"{self.error:.1f}% ({self.low:.1f} to {self.high:.1f})"


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """Result of one arm: its search, its confirmations, their scores and costs."""

    arm: str
    """Name of the arm."""
    number: int | None = None
    """Number of the arm among all arms of its space, by which it has its colour; None in results
    of earlier versions."""
    trials: Mapping[Outcome, int]
    """Outcome -> number of search trials."""
    confirmations: Mapping[Outcome, int] = field(default_factory=dict)
    """Outcome -> number of confirmations that were begun."""
    search_seconds: Number
    """Device-seconds of all search trials."""
    best: BestTrial | None
    """The search trial whose settings were confirmed; None if none reported a rung."""
    seeds: tuple[SeedScores, ...]
    """Scores of the complete confirmations."""
    collapsed: bool
    """Whether a seed collapsed (``study.analysis.collapses``), divergence apart."""
    costs: Mapping[str, Number]
    """Means over the confirmations: ``trained_parameters``, ``trained_percent``, ``seconds`` (of a
    device), ``peak_memory_gib`` and ``adapter_mib`` (what is trained, in fp32). Empty if there is
    no confirmation."""
    test: Mapping[str, Score] | None = None
    """Column of a measure -> score on the test split; None if no trial was confirmed."""
    decides: str = "overall"
    """Column of a measure by which arms are compared."""
    collapse: Collapse | None = None
    """How often its training collapses, and what it scores otherwise; None if no confirmation has
    come to its end, and in results of earlier versions."""
    blind: Mapping[str, BlindScore] = field(default_factory=dict)
    """``blank``: test questions asked of a blank image, ``swapped``: of another patient's -> score;
    empty in results of earlier versions."""
    calibration: Calibration | None = None
    """Calibration of answers to closed questions; None if there are none, and in results of earlier
    versions."""
    may_gain: RemainingGain | None = None
    """What more search may still bring the arm, judging by its trials; None if too few are known,
    with several objectives, and in results of earlier versions."""
    diverged_at: float | None = None
    """Lowest learning rate at which a search trial of the arm diverged, if that is no larger than
    the best trial's and the arm was confirmed with more seeds for it; None if it was not."""
    collapsed_at: float | None = None
    """Lowest learning rate at which a search trial of the arm collapsed
    (``study.search.unsteady_arms``), if the arm was confirmed with more seeds for it; else None."""

    @property
    def unsteady(self) -> tuple[str, float] | None:
        """What a search trial did for which the arm was confirmed with more seeds, ``diverged`` or
        ``collapsed``, and its learning rate; None if none did."""
        if self.diverged_at is not None:
            return "diverged", self.diverged_at
        return None if self.collapsed_at is None else ("collapsed", self.collapsed_at)

    @property
    def unseeing(self) -> bool:
        """Whether the arm is not shown to score more with its questions' images than with a blank
        one."""
        return "blank" in self.blind and self.blind["blank"].gain.low <= 0

    @property
    def overall(self) -> Estimate:
        """Score of a confirmed arm on the whole test split, by the measure that decides."""
        found = self.test[self.decides].interval if self.test else None
        assert found is not None, f"arm {self.arm} was not confirmed"
        return found


@dataclass(frozen=True, kw_only=True)
class ArmScore:
    """Score of one arm on a set of questions."""

    arm: str
    """Name of the arm."""
    test: Mapping[str, Score]
    """Column of a measure -> score."""


@dataclass(frozen=True, kw_only=True)
class DatasetResult:
    """Scores on the test split of one dataset."""

    data: str
    """Name of the dataset."""
    arms: tuple[ArmScore, ...]
    """Scores of the confirmed arms, the best first."""
    shown: Mapping[str, str]
    """Column of a measure that tables show -> its title."""
    baselines: Baselines
    comparisons: tuple[ArmPair, ...]
    """Comparison of each pair of arms."""
    leader: Estimate | None = None
    """Score of the best arm by what decides, by an estimate and an interval that allow for
    its having been chosen; None of a single arm, and in results of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class RungResult:
    """Report of a trial at one rung, as in ``results.json``; see ``study.trials.record.Rung``."""

    examples_seen: Annotated[int, Gt(0)]
    validation_loss: float | None
    train_loss: float | None
    seconds: float
    """Device-seconds that the trial took so far."""
    reported_at: float
    """Time of the report, in seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """Result of one trial, as in ``results.json``; see ``study.trials``."""

    trial: str
    """Id of the trial."""
    kind: Kind
    arm: str
    """Name of the arm; ``untuned`` for the trial that scores the base model."""
    search: int = 0
    """Which of the arm's searches it belongs to, counted from 0."""
    parameters: Mapping[str, Any]
    """Name of a searched parameter -> its value."""
    recipe: Mapping[str, Mapping[str, Any]]
    """Slot -> method with all its settings."""
    lr: Annotated[float, Ge(0)]
    """Learning rate; 0 of the untuned model."""
    batch_size: int | None = None
    """Number of training examples in a batch; None in results of earlier versions."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training settings that are off their defaults, by name; see
    ``trainables.engine.training_settings``."""
    seed: int
    outcome: Outcome | None
    error: str
    """Error in one line; empty if there is none."""
    remark: str = ""
    """Remark in one line, if the trial did not run as it should, though that changes no number."""
    rungs: tuple[RungResult, ...]
    scores: Scores
    """Split and column of a measure, as ``validation.overall`` -> score."""
    costs: Mapping[str, Number]
    """Costs of the trial, as in ``TrialRecord.costs``."""


@dataclass(frozen=True, kw_only=True)
class UsedSettings:
    """Options of the command that began a study, as far as report and export depend on them."""

    space: str
    """Name or file of the search space."""
    model: str
    """Base model: ``tiny``, or its folder."""
    image_size: int | None = None
    """Pixels a side of an image; None: the base model's own size."""
    prompt: str = DEFAULT_ASKING.prompt
    """Prompt with which questions are asked, unless a trial has its own."""
    system: str = DEFAULT_ASKING.system
    """System message; empty if there is none."""
    choose: str = CHOOSE[0]
    """How questions with options are answered (``trainables.training.regime.Regime``)."""
    arm: str | None = None
    """Arms of the space that were run; None: all."""
    set: tuple[str, ...] | None = None
    """Other values of settings of the space; None: none was given."""
    objective: str = "score"
    """What the search was for, and the costs that were traded off."""
    under: str | None = None
    """Limits of what may be confirmed; None: there were none."""
    margin: float = 1.0
    """Difference in percentage points that does not matter."""
    measure: str = "overall"
    """Value of ``--measure``."""


@dataclass(frozen=True, kw_only=True)
class UsedBudget:
    """Budget of a study, as far as a model card tells it."""

    max_examples: int
    """Training examples of a whole trial."""
    epochs: float | None = None
    """Training examples of a whole trial in passes over the training split, if the study was asked
    so."""
    batch_size: int | None = None
    """Training examples in a batch; None in results of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class UsedModel:
    """Base model of a study."""

    name: str
    digest: str
    """Digest of the weights and the configuration."""
    image_size: int | None = None
    """Pixels a side of an image; None in results of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class UsedData:
    """Data of a study."""

    name: str
    digest: str
    """Digest of questions, answers and images."""
    questions: Mapping[str, int] = field(default_factory=dict)
    """Split -> number of its questions."""
    findings: tuple[str, ...] = ()
    """Findings of the audit in words."""
    patients: int = 0
    """Patients of the test split; 0 if the data do not name them."""
    options: str = "text"
    """How most training answers are written of questions with options, a key of
    ``trainables.data.common.multiple_choice.WAYS``."""


@dataclass(frozen=True, kw_only=True)
class UsedHardware:
    """Hardware of a study's last session."""

    device: str
    """Kind of the devices, as PyTorch calls it."""
    devices: int
    """Number of devices."""
    concurrency: int
    """Trials at a time."""
    names: tuple[str, ...] = ()
    """Names of the devices' models."""


@dataclass(frozen=True, kw_only=True)
class UsedProtocol:
    """The part of a study's protocol that its report and the exports of its models depend on."""

    settings: UsedSettings
    budget: UsedBudget
    against: str | None = None
    """Arm with which each other arm was compared; None: all pairs were."""
    precision: str
    """Precision of the computation, ``fp32`` or ``bf16``."""
    base_bits: BaseBits | None = None
    """How the base was quantised; None: it was not."""
    beams: int = 1
    """Number of beams in the search for an answer."""
    answer_tokens: int = 10
    """Maximum number of tokens of an answer."""
    model: UsedModel
    data: UsedData
    versions: Mapping[str, str]
    """Package -> its version."""
    searcher: str = "tpe"
    """Searcher; studies that are older than the choice searched by TPE."""
    stopper: str = "asha"
    """Rule of early stopping; studies that are older than the choice used ASHA."""
    allocation: str = "floor"
    """Division of trials among arms."""
    search: str = ""
    """Number of trials, and why the search ended before all that were allowed, in words."""
    hardware: UsedHardware | None = None
    """Hardware; None in results of earlier versions."""
    protocol_sha256: str = ""
    """Digest that the journal has of ``protocol.json``; empty if there is none."""
    identity: str = ""
    """The study's own identity on every MLflow server; empty in older studies."""
    commit: str = ""
    """Git commit of the code; empty if it is unknown."""
    command: str
    """Command that began the study."""
    begun: str
    """Time at which the study began."""


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """Everything that a finished study found."""

    version: int = VERSION
    """Version of ``results.json``. Version 2 has ``scoring``, and a model's digest covers its
    tokenizer, prompt and image processing."""
    scoring: int = 1
    """Version of the rules by which answers were scored
    (``trainables.measures.common.scores.VERSION``)."""
    study: str
    """Name of the study."""
    question: str
    """The question that its search space asks."""
    verdict: str
    """The answer in a few sentences."""
    decides: str = "overall"
    """Column of a measure by which arms are compared: ``overall`` is accuracy, or what answers
    earn."""
    claim: Claim = Claim.MODELS
    """What the answer is about."""
    searches: int = 1
    """Independent searches of each arm; of several splits of the data, one in each."""
    shown: Mapping[str, str]
    """Column of a measure that tables show -> its title."""
    baselines: Baselines
    mlflow: str = ""
    """Address of the MLflow store of the study's last session, as
    ``study.tracking.mlflow_store.noted`` gives it; empty for the one in the storage folder, and in
    results of earlier versions."""
    arms: tuple[ArmResult, ...]
    """All arms, the best first; those that were not confirmed come last."""
    comparisons: tuple[ArmPair, ...]
    """Comparison of each pair of confirmed arms or, if ``against`` names an arm, of each with
    that."""
    leader: Estimate | None = None
    """Score of the best arm, as ``DatasetResult.leader`` has it."""
    strata: Strata | None = None
    """Groups of questions on which the arms differ; None if no field divides the test questions,
    and in results of earlier versions."""
    ood: tuple[DatasetResult, ...] = ()
    """Scores on each dataset of ``--ood``, on which no trial trained."""
    efficiency: Efficiency
    trials: tuple[TrialResult, ...]
    """All trials, the oldest first."""
    protocol: Mapping[str, Any]
    """How the study was done, as ``study.planning.provenance.describe`` returns it: settings,
    budget, model and data with digests, versions, commit, command, time. It stays a mapping because
    it is a record to be shown key by key, whatever the version that wrote it knew of. What the code
    depends on is parsed into ``UsedProtocol``."""

    @property
    def confirmed(self) -> list[ArmResult]:
        """The arms that have a score on the test split, the best first."""
        return [arm for arm in self.arms if arm.test]

    @property
    def against(self) -> str | None:
        """Arm with which each other arm was compared; None: all pairs were."""
        return self.protocol.get("against")

    @property
    def splits(self) -> int:
        """Splits of the data, in each of which each arm was searched; 1: there was one."""
        return int(self.protocol.get("settings", {}).get("splits", 1))

    @property
    def arm_numbers(self) -> dict[str, int]:
        """Name of an arm -> the number by which it has its colour, the best arm first."""
        noted = {arm.arm: arm.number for arm in self.arms if arm.number is not None}
        return noted if len(noted) == len(self.arms) else arm_numbers(arm.arm for arm in self.arms)

    @property
    def letters(self) -> dict[str, str]:
        """Name of a confirmed arm -> its letters: arms that have one in common are not told apart.
        Empty for fewer than three arms, of which the one pair says it all, where not all pairs were
        compared, and for several splits of the data, of which nothing is claimed."""
        if self.against or self.claim == Claim.SPLITS:
            return {}
        return letters_of(self.confirmed, self.comparisons)

    def trial(self, trial_id: str) -> TrialResult:
        """The trial with this id."""
        return next(trial for trial in self.trials if trial.trial == trial_id)


def letters_of(confirmed: Sequence[ArmResult], pairs: Iterable[ArmPair]) -> dict[str, str]:
    """Name of each of the confirmed arms, the best first, -> its letters; see
    ``StudyResults.letters``."""
    ranked = [arm.arm for arm in confirmed]
    if len(ranked) < 3:
        return {}
    better = [pair for pair in pairs if pair.deciding.finding == Finding.BETTER]
    return letters(ranked, [(pair.first, pair.second) for pair in better])
