"""Record of a trial: its rungs, its end, and both with what it is (``TrialSpec``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from annotated_types import Ge, Lt

from study.trials.spec import TrialSpec
from trainables import stored_json

Time = Annotated[float, Ge(0), Lt(253_402_300_800)]
"""A time in seconds since 1970, before the year 10000."""


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
    reported_at: Time
    """Time of the report."""
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
    started_at: Time
    """Time of the start."""
    rungs: list[Rung] = field(default_factory=list)
    ran: dict[str, str] = field(default_factory=dict)
    """Way in which the trial is computed, which decides none of its numbers: ``lane``, ``devices``,
    ``engine``, ``micro_batch``, ..."""
    outcome: Outcome | None = None
    """Outcome of the trial; None while it runs or waits to be run again."""
    ended_at: Time | None = None
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

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], number: int) -> TrialRecord | None:
        """The record of a trial as the journal has it: ``begin``, ``ran``, ``rung:<examples>`` and
        ``end``. None for a trial that was drawn but never begun.

        Raises:
            KeyError, TypeError, ValueError: another version wrote it, or a value is of another
                type.
        """
        if "begin" not in attributes:
            return None
        of_rungs = [value for name, value in attributes.items() if name.startswith("rung:")]
        # Values stay as they are: a trial's id is made of them.
        stored_json.parse(_Attributes, {**attributes, "rungs": of_rungs}, "a trial")
        rungs = [Rung(**value) for value in of_rungs]
        record = cls(
            spec=TrialSpec.from_plain(attributes["begin"]["spec"]),
            number=number,
            started_at=attributes["begin"]["started_at"],
            rungs=sorted(rungs, key=lambda rung: rung.examples_seen),
            ran=attributes.get("ran", {}),
        )
        if "end" in attributes:
            end: Mapping[str, Any] = attributes["end"]
            record.outcome, record.ended_at = Outcome(end["outcome"]), end["ended_at"]
            record.costs, record.scores = {**record.rung_costs, **end["costs"]}, end["scores"]
            record.error, record.remark = end["error"], end.get("remark", "")
            record.scoring = end.get("scoring", 1)
        return record

    @property
    def rung_costs(self) -> dict[str, float]:
        """Costs at the last rung; empty before the first."""
        last = self.rungs[-1] if self.rungs else None
        return {"seconds": last.seconds, **last.costs} if last else {}

    @property
    def seconds(self) -> float:
        """Device-seconds that the trial has taken, as far as they are known. Of a trial that was
        lost with its host, or that began anew, the reported rungs are all that is known."""
        return max(self.costs.get("seconds", 0.0), self.rungs[-1].seconds if self.rungs else 0.0)

    @property
    def loss(self) -> float:
        """The last validation loss; infinite before the first."""
        return self.rungs[-1].validation_loss if self.rungs else float("inf")

    @property
    def examples_seen(self) -> int:
        """Examples seen at the last reported rung."""
        return self.rungs[-1].examples_seen if self.rungs else 0


@dataclass(frozen=True, kw_only=True)
class _Begin:
    """Start of a trial, as the journal has it."""

    spec: TrialSpec
    started_at: Time


@dataclass(frozen=True, kw_only=True)
class _End(TrialEnd):
    """End of a trial, as the journal has it."""

    ended_at: Time
    scoring: int = 1


@dataclass(frozen=True, kw_only=True)
class _Attributes:
    """Types of what the journal has of a trial."""

    begin: _Begin
    ran: dict[str, str] = field(default_factory=dict)
    rungs: list[Rung]
    end: _End | None = None
