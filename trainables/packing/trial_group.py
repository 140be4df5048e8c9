"""Trains several trials on one resident base, one step of each at a time.

A trial enters the group, trains to its next target, stops there, and leaves, at any step and in
milliseconds: the base stays, and only the trial's own parameters and optimizer come and go. No
trial affects another: its numbers stay the same, and it goes on when another diverges, runs out of
memory or fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainables.cache.arrays import Progress
from trainables.memory.measure import is_out_of_memory
from trainables.packing.network_diff import Unpackable
from trainables.packing.pack import Pack, PackMember
from trainables.shared_layers.row_owners import PaddingUnknown
from trainables.training.frozen_features import Features
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A trial that has reached its target, or can't reach it."""

    key: str
    train_loss: float
    """Mean loss over the steps since the target was set; 0 if no step was needed."""
    error: Exception | None = None
    """Reason why the trial can't go on: ``Diverged``, out of memory, or any other error. It stays
    in the group until ``leave``."""


@dataclass(kw_only=True, eq=False)
class _Member:
    key: str
    trial: Trial
    pack_member: PackMember | None = None
    """Member of a pack that stands for the trial; None if the trial steps alone."""
    until: int | None = None
    """Target in examples seen; None if the trial is not training."""
    total: float = 0.0
    steps: int = 0
    error: Exception | None = None

    @property
    def has_dropout(self) -> bool:
        """Whether the trial can be in a pack and has dropout."""
        return self.pack_member is not None and self.pack_member.has_dropout

    def advance(self, step: Callable[[], float]) -> None:
        """Take a step; an error ends this trial's training and no other's."""
        with self.trying():
            self.total += step()
            self.steps += 1

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Keep an error that the block raises; it ends this trial's training and no other's."""
        try:
            yield
        except Exception as error:  # passed on by its ``Arrival``
            self.error = error


class TrialGroup:
    """Several trials on one resident base. Only one thread may call it."""

    def __init__(
        self,
        workload: Workload,
        *,
        precision: str = "fp32",
        places: int,
        trials_per_pass: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Start without trials.

        ``trials_per_pass`` is the maximum number of trials that share a pass; by default it is
        ``places``. ``progress`` is called while frozen features
        (``trainables.training.frozen_features``) are computed. That happens when the first trial
        that can use them enters, unless they are on disk already.
        """
        self.workload, self.precision = workload, precision
        self.features = Features(workload, precision=precision, progress=progress)
        self.places = places
        """Maximum number of trials in the group."""
        self.alone_reasons: dict[str, str] = {}
        """Reasons why trials are in no pack, by key."""
        self._members: dict[str, _Member] = {}
        self._pack = Pack(workload, self.features)
        self._trials_per_pass = trials_per_pass or places
        """Maximum number of trials in a pass; lowered when memory runs out."""

    def enter(
        self,
        key: str,
        config: TrialConfig,
        *,
        deepspeed: str = "off",
        micro_batch: int | None = None,
        evaluation_batch: int | None = None,
        activation_checkpointing: bool = False,
        checkpoint: Path | None = None,
    ) -> Trial:
        """Add a trial, which continues from ``checkpoint`` if something was saved there.

        ``deepspeed`` and the arguments after it are those of ``Trial``.

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
            # They are computed by the base from images on the device, so the base must be there.
            features=self.features if self.workload.resident else None,
            micro_batch=micro_batch,
            evaluation_batch=evaluation_batch,
            activation_checkpointing=activation_checkpointing,
        )
        if checkpoint is not None and trial.engine is not None:
            trial.restore(checkpoint)
        member = _Member(key=key, trial=trial)
        if trial.applied.parameters:  # without them it takes no step
            try:
                member.pack_member = self._pack.member_of(trial)
            except Unpackable as error:
                self.alone_reasons[key] = str(error)
        self._members[key] = member  # last: memory may run out before
        return trial

    def trial(self, key: str) -> Trial:
        """Trial called ``key``."""
        return self._members[key].trial

    def train_to(self, key: str, until: int) -> None:
        """Set a trial's target: train until it has seen at least ``until`` examples."""
        member = self._members[key]
        member.until, member.total, member.steps = until, 0.0, 0

    def step(self) -> list[Arrival]:
        """Take one optimizer step of every trial that has a target; return those that reached
        it."""
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
        """Remove a trial at once, whether or not it has reached its target."""
        if self._members.pop(key).pack_member is not None:
            self._pack.forget()
        self.alone_reasons.pop(key, None)

    def _passes(self, going: Sequence[_Member]) -> Iterator[list[_Member]]:
        """Divide trials into passes. Trials share a pass if they begin at the same stage and have
        the same division of the data and the same loss function. Trials of similar recipes are
        neighbours in a pass, since layers that differ from the base's run once for neighbours of
        the same kind."""
        together: dict[tuple[int, int, int, float], list[_Member]] = {}
        most = self._trials_per_pass
        for member in going:
            if member.pack_member is None:
                yield [member]
                continue
            trial = member.trial
            stages = trial.frozen_stages, trial.features_done
            alike = (*stages, trial.config.split, trial.losses.smoothing)
            together.setdefault(alike, []).append(member)
        for some in together.values():
            some.sort(key=lambda member: str(member.trial.config.recipe))
            for start in range(0, len(some), most):
                yield some[start : start + most]

    def _advance(self, some: Sequence[_Member]) -> None:
        """Take one step of each trial, in one pass if possible."""
        members = [member.pack_member for member in some if member.pack_member is not None]
        if len(members) < 2:
            for member in some:
                member.advance(member.trial.step)
            return
        try:
            losses_M = self._pack.backward(members)
        except PaddingUnknown:
            for member in some:
                if member.has_dropout:
                    member.advance(member.trial.step)
            self._advance([m for m in some if not m.has_dropout])
        except Exception as error:  # a method's own code may raise any
            for member in some:
                for parameter in member.trial.applied.parameters.values():
                    parameter.grad = None
            self._pack.forget()
            if is_out_of_memory(error):
                half = self._trials_per_pass = (len(some) + 1) // 2
                self._advance(some[:half])
                self._advance(some[half:])
                return
            # The error is no particular trial's: alone, only the one that causes it fails.
            for member in some:
                member.pack_member = None
                self.alone_reasons[member.key] = f"{type(error).__name__}: {error}"
                member.advance(member.trial.step)
        else:
            for member in some:
                with member.trying():
                    member.trial.update()
            if self.workload.computes_ahead and all(map(_goes_on, some)):
                try:
                    self._pack.prepare(members)
                except Exception:  # the step that needs the batch raises it, if it persists
                    self._pack.forget()
            for member, loss in zip(some, losses_M.tolist(), strict=True):
                if member.error is None:
                    member.advance(partial(member.trial.check_finite, loss))


def _goes_on(member: _Member) -> bool:
    """Whether a trial takes another step after the one that it has just taken."""
    going = member.until is not None and member.trial.examples_seen < member.until
    return going and member.error is None
