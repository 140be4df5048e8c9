"""Several trials on one resident base: each goes its own way, one step of all at a time.

A trial enters, is sent on to its next budget, arrives there, and leaves, at any step and in
milliseconds: the base stays, only the trial's own parameters and optimizer come and go. What
becomes of one trial never touches another: not its numbers, and not when it diverges, runs out of
memory or fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainables.features import Features
from trainables.kept import Progress
from trainables.trial import Trial, TrialConfig
from trainables.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A trial that is where it was sent, or will never be."""

    key: str
    train_loss: float
    """Mean over the steps since it was sent on; 0 where it was there already."""
    error: Exception | None = None
    """Why it will not train on: ``Diverged``, out of memory, or whatever a trial does. It keeps
    its place until it is told to leave."""


@dataclass(kw_only=True)
class _Member:
    trial: Trial
    until: int | None = None
    """Where it is on its way to."""
    total: float = 0.0
    steps: int = 0


class Lane:
    """Several trials on one resident base. One thread calls it."""

    def __init__(
        self,
        workload: Workload,
        *,
        deepspeed: str = "off",
        precision: str = "fp32",
        places: int,
        progress: Progress | None = None,
    ) -> None:
        """``progress`` is told about frozen features (``trainables.features``) when the first trial
        that can use them enters, if they are not on disk yet."""
        self.workload, self.deepspeed, self.precision = workload, deepspeed, precision
        self.features = Features(workload, precision=precision, progress=progress)
        self.places = places
        """How many trials it takes at once."""
        self._members: dict[str, _Member] = {}

    def enter(self, key: str, config: TrialConfig, *, checkpoint: Path | None = None) -> Trial:
        """Make room for a trial, which goes on from ``checkpoint`` if something was saved there.

        Raises:
            BadInput: the recipe does not suit the model.
        """
        assert key not in self._members, f"{key} is here already"
        assert len(self._members) < self.places, f"all {self.places} places are taken"
        trial = Trial(self.workload, config, deepspeed=self.deepspeed, precision=self.precision)
        if checkpoint is not None and trial.engine is not None:
            trial.restore(checkpoint)
        self._members[key] = _Member(trial=trial)
        return trial

    def train_to(self, key: str, until: int) -> None:
        """Send a trial on, until it has seen at least that many examples."""
        member = self._members[key]
        member.until, member.total, member.steps = until, 0.0, 0

    def step(self) -> list[Arrival]:
        """One optimizer step of every trial that is on its way; which of them have arrived."""
        arrivals = []
        for key, member in self._members.items():
            if member.until is None:
                continue
            error = self._advance(member)
            if error is not None or member.trial.examples_seen >= member.until:
                mean = member.total / max(member.steps, 1)
                arrivals.append(Arrival(key=key, train_loss=mean, error=error))
                member.until = None
        return arrivals

    def leave(self, key: str) -> None:
        """Free a trial's place at once, wherever it is."""
        del self._members[key]

    def _advance(self, member: _Member) -> Exception | None:
        assert member.until is not None
        try:
            if member.trial.examples_seen < member.until:
                member.total += member.trial.step()
                member.steps += 1
        except Exception as error:  # the others go on
            return error
        return None
