"""Record of a trial: its rungs, its end, and both with what it is (``TrialSpec``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from study.trials.spec import TrialSpec


class Outcome(StrEnum):
    """Outcome of a trial that has ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A trial's report at a rung."""

    examples_seen: int
    validation_loss: float
    train_loss: float
    """Mean training loss since the rung before."""
    seconds: float
    """Device-seconds that the trial took so far, validation included."""
    reported_at: float
    """Time of the report, in seconds since 1970."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Costs so far, as in ``TrialRecord.costs``, as far as they are known."""


@dataclass(frozen=True, kw_only=True)
class TrialEnd:
    """End of a trial. Its fields are those of ``TrialRecord``."""

    outcome: Outcome
    costs: Mapping[str, float] = field(default_factory=dict)
    """Costs of the trial. One that is missing, as when the trial was lost with its host, keeps its
    value at the last rung."""
    scores: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    remark: str = ""


@dataclass(kw_only=True)
class TrialRecord:
    """A trial and what became of it so far. Only the journal changes it."""

    spec: TrialSpec
    number: int
    """Number of the trial in its Optuna study."""
    started_at: float
    """Time of the start, in seconds since 1970."""
    rungs: list[Rung] = field(default_factory=list)
    ran: dict[str, str] = field(default_factory=dict)
    """Way in which the trial is computed, which decides none of its numbers: ``lane``, ``devices``,
    ``engine``, ``micro_batch``, ..."""
    outcome: Outcome | None = None
    """Outcome of the trial; None while it runs or waits to be run again."""
    ended_at: float | None = None
    costs: dict[str, float] = field(default_factory=dict)
    """Costs of the trial: ``trained_parameters``, ``trained_percent``, ``seconds``,
    ``peak_memory_gib``."""
    scores: dict[str, float] = field(default_factory=dict)
    """Scores in percent: ``validation.overall``, ``test.open``, ...; see
    ``trainables.measures.common.scores.score``."""
    scoring: int = 1
    """Version of the rules by which ``scores`` were made: ``VERSION`` in
    ``trainables.measures.common.scores``."""
    error: str = ""
    """Error in one line, for outcomes other than ``complete`` and ``pruned``."""
    remark: str = ""
    """Remark in one line, if the trial did not run as it should, though that changes no number."""

    @property
    def loss(self) -> float:
        """The last validation loss; infinite before the first."""
        return self.rungs[-1].validation_loss if self.rungs else float("inf")

    @property
    def examples_seen(self) -> int:
        """Examples seen at the last reported rung."""
        return self.rungs[-1].examples_seen if self.rungs else 0
