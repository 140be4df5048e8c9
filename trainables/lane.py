"""Several trials on one resident base: each goes its own way, one step of all at a time.

A trial enters, is sent on to its next budget, arrives there, and leaves, at any step and in
milliseconds: the base stays, only the trial's own parameters and optimizer come and go. What
becomes of one trial never touches another: not its numbers, and not when it diverges, runs out of
memory or fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainables import memory
from trainables.features import Features
from trainables.kept import Progress
from trainables.pack import Guest, Pack
from trainables.parting import Unpackable
from trainables.rows import Unclear
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


@dataclass(kw_only=True, eq=False)
class _Member:
    key: str
    trial: Trial
    guest: Guest | None = None
    """What it is in a pack; without it the trial steps alone."""
    until: int | None = None
    """Where it is on its way to."""
    total: float = 0.0
    steps: int = 0
    error: Exception | None = None

    def advance(self, step: Callable[[], float]) -> None:
        """Take a step; what goes wrong is the trial's own affair."""
        with self.trying():
            self.total += step()
            self.steps += 1

    @contextmanager
    def trying(self) -> Iterator[None]:
        """An error inside ends the trial's way, and nobody else's."""
        try:
            yield
        except Exception as error:  # told by its ``Arrival``
            self.error = error


class Lane:
    """Several trials on one resident base. One thread calls it."""

    def __init__(
        self,
        workload: Workload,
        *,
        precision: str = "fp32",
        places: int,
        at_once: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """``at_once`` is the most trials that share a pass: all, if it is not said. ``progress`` is
        told about frozen features (``trainables.features``) when the first trial that can use them
        enters, if they are not on disk yet."""
        self.workload, self.precision = workload, precision
        self.features = Features(workload, precision=precision, progress=progress)
        self.places = places
        """How many trials it takes at once."""
        self.alone: dict[str, str] = {}
        """Trials here that step by themselves -> why."""
        self._members: dict[str, _Member] = {}
        self._pack = Pack(workload, self.features, precision)
        self._at_once = at_once or places
        """How many trials a pass takes: fewer when memory was out."""

    def enter(
        self,
        key: str,
        config: TrialConfig,
        *,
        deepspeed: str = "off",
        micro_batch: int | None = None,
        evaluation_batch: int | None = None,
        checkpointing: bool = False,
        checkpoint: Path | None = None,
    ) -> Trial:
        """Make room for a trial, which goes on from ``checkpoint`` if something was saved there;
        for ``deepspeed`` and what comes after it see ``Trial``.

        Raises:
            BadInput: the recipe does not suit the model.
        """
        assert key not in self._members, f"{key} is here already"
        assert len(self._members) < self.places, f"all {self.places} places are taken"
        trial = Trial(
            self.workload,
            config,
            deepspeed=deepspeed,
            precision=self.precision,
            # They are computed with the base where it is, from images on the device.
            features=self.features if self.workload.resident else None,
            micro_batch=micro_batch,
            evaluation_batch=evaluation_batch,
            checkpointing=checkpointing,
        )
        if checkpoint is not None and trial.engine is not None:
            trial.restore(checkpoint)
        self._members[key] = member = _Member(key=key, trial=trial)
        if trial.applied.parameters:  # who trains nothing takes no step
            try:
                member.guest = self._pack.guest(trial)
            except Unpackable as error:
                self.alone[key] = str(error)
        return trial

    def trial(self, key: str) -> Trial:
        """One that is here."""
        return self._members[key].trial

    def train_to(self, key: str, until: int) -> None:
        """Send a trial on, until it has seen at least that many examples."""
        member = self._members[key]
        member.until, member.total, member.steps = until, 0.0, 0

    def step(self) -> list[Arrival]:
        """One optimizer step of every trial that is on its way; which of them have arrived."""
        moving = {key: m for key, m in self._members.items() if m.until is not None}
        going = [m for m in moving.values() if m.until and m.trial.examples_seen < m.until]
        for some in self._passes(going):
            self._advance(some)
        arrivals = []
        for key, member in moving.items():
            assert member.until is not None
            if member.error is not None or member.trial.examples_seen >= member.until:
                mean = member.total / max(member.steps, 1)
                arrivals.append(Arrival(key=key, train_loss=mean, error=member.error))
                member.until = None
        return arrivals

    def leave(self, key: str) -> None:
        """Free a trial's place at once, wherever it is."""
        if self._members.pop(key).guest is not None:
            self._pack.forget()
        self.alone.pop(key, None)

    def _passes(self, going: Sequence[_Member]) -> Iterator[list[_Member]]:
        """Who goes through the network together: trials that begin at the same stage and minimise
        the same. Those of like recipes are neighbours, since layers that differ from the base's run
        once for such a run."""
        together: dict[tuple[int, int, float], list[_Member]] = {}
        most = self._at_once
        for member in going:
            if member.guest is None:
                yield [member]
                continue
            trial = member.trial
            alike = (trial.frozen_stages, trial.features_done, trial.losses.smoothing)
            together.setdefault(alike, []).append(member)
        for some in together.values():
            some.sort(key=lambda member: str(member.trial.config.recipe))
            for start in range(0, len(some), most):
                yield some[start : start + most]

    def _advance(self, some: Sequence[_Member]) -> None:
        """One step of each, in one pass if there is a way."""
        guests = [member.guest for member in some if member.guest is not None]
        if len(guests) < 2:
            for member in some:
                member.advance(member.trial.step)
            return
        try:
            losses_M = self._pack.backward(guests)
        except Unclear:
            for member in some:
                if member.guest is not None and member.guest.drops:
                    member.advance(member.trial.step)
            self._advance([m for m in some if m.guest is not None and not m.guest.drops])
        except Exception as error:
            for member in some:
                for parameter in member.trial.applied.parameters.values():
                    parameter.grad = None
            self._pack.forget()
            if memory.lacks(error):
                half = self._at_once = (len(some) + 1) // 2
                self._advance(some[:half])
                self._advance(some[half:])
                return
            # Nobody's in particular: alone, who is to blame fails for itself.
            for member in some:
                member.guest, self.alone[member.key] = None, f"{type(error).__name__}: {error}"
                member.advance(member.trial.step)
        else:
            for member in some:
                with member.trying():
                    member.trial.update()
            if self.workload.computes_ahead and all(map(_goes_on, some)):
                try:
                    self._pack.prepare(guests)
                except Exception:  # the step that needs it says what is wrong, if it still is
                    self._pack.forget()
            for member, loss in zip(some, losses_M.tolist(), strict=True):
                if member.error is None:
                    member.advance(partial(member.trial.finite, loss))


def _goes_on(member: _Member) -> bool:
    """After the step that it has just taken."""
    going = member.until is not None and member.trial.examples_seen < member.until
    return going and member.error is None
