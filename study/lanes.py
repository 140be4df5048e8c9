"""Gives each trial its devices: a place on a host, or a gang of several; keeps all of them busy.

Devices are few and change hands: a gang starts when as many as it needs are free, those of idle
hosts and gangs included, and never waits for them while it holds some. A trial that finds no room
waits here. Younger ones that need less may pass it, so that no device idles, but only a few of
them: then what falls free is kept for the one that waits. Knows nothing of Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from study.gangs import Gangs
from study.hosts import Hosts
from study.placement import Placement
from study.placements import Placements
from study.records import TrialSpec

PATIENCE = 4
"""Younger trials that may begin before one that waits."""


@dataclass(kw_only=True)
class _Waiting:
    spec: TrialSpec
    placement: Placement
    passed: int = 0
    """Younger trials that have begun since it waits."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A trial that can begin."""

    spec: TrialSpec
    placement: Placement
    host: str
    """Name of whom it is brought to."""


class Lanes:
    """All that can run trials."""

    def __init__(self, hosts: Hosts, gangs: Gangs, placements: Placements) -> None:
        self.hosts, self.gangs, self.placements = hosts, gangs, placements
        self.devices = hosts.devices.hosts
        """Of the study."""
        self._waiting: list[_Waiting] = []
        self._begun: dict[str, Placement] = {}
        """Trial id -> where it runs."""

    @property
    def concurrency(self) -> int:
        """Trials at a time at most."""
        return self.placements.concurrency(self.hosts.devices)

    def start(self) -> None:
        """Start now what will be needed, where all trials need the same."""
        sizes = self.placements.sizes
        if sizes == {1}:
            self.hosts.start()
        elif len(sizes) == 1:
            (size,) = sizes
            for _ in range(min(self.devices // size, self.concurrency)):
                self.gangs.start(size)

    def next(self, draw: Callable[[], TrialSpec | None]) -> Start | None:
        """The next trial that can begin: one that waits, or a new one; None if none can.

        Raises:
            BadInput: no host could be started.
        """
        for waiting in self._waiting:
            if self._room(waiting.placement):
                self._waiting.remove(waiting)
                return self._begin(waiting.spec, waiting.placement)
            if waiting.passed >= PATIENCE:
                return None
        while len(self._waiting) < self.devices and self._any_room():
            spec = draw()
            if spec is None:
                return None
            placement = self.placements.of(spec)
            if self._room(placement):
                return self._begin(spec, placement)
            self._waiting.append(_Waiting(spec=spec, placement=placement))
        return None

    def again(self, spec: TrialSpec) -> str:
        """A trial has left because it ran out of memory: let it begin again, once, if it would run
        in less; what to note of it then, otherwise empty."""
        note = self.placements.out_of_memory(spec, self._begun[spec.id])
        if note:
            self._waiting.append(_Waiting(spec=spec, placement=self.placements.of(spec)))
        return note

    @property
    def waits(self) -> bool:
        """Whether a trial that was drawn has not begun."""
        return bool(self._waiting)

    def lost(self, trial_id: str) -> str:
        """A trial's host has died; the name of whom it is brought to next."""
        gang = self.gangs.of(trial_id)
        return self.gangs.lost(gang) if gang is not None else self.hosts.lost(trial_id)

    def left(self, trial_id: str) -> None:
        """A trial has ended, or was stopped."""
        gang = self.gangs.of(trial_id)
        if gang is not None:
            self.gangs.left(gang)
        else:
            self.hosts.left(trial_id)

    def give_back(self, *, all_idle: bool) -> None:
        """End what has no trial: all, or what had none for a while.

        Raises:
            BadInput: no host, or no gang, could be started.
        """
        self.hosts.give_back(all_idle=all_idle)
        self.gangs.give_back(all_idle=all_idle)

    def _any_room(self) -> bool:
        """Whether some trial of this study could begin."""
        return any(self._room(placement) for placement in self.placements.every)

    def _room(self, placement: Placement) -> bool:
        """Whether a trial that is placed so could begin now."""
        if placement.devices == 1:
            self.hosts.most = self.devices - self.gangs.taken
            if self.hosts.room(1 / placement.sharing):
                return True
            return bool(self.gangs.idle())
        if self.gangs.idle(placement.devices):
            return True
        return self._free + len(self.hosts.idle()) + self._of_idle_gangs >= placement.devices

    def _begin(self, spec: TrialSpec, placement: Placement) -> Start:
        for other in self._waiting:
            other.passed += 1
        self._begun[spec.id] = placement
        if placement.devices == 1:
            if not self.hosts.room(1 / placement.sharing):
                self.gangs.end(self.gangs.idle()[0])
                self.hosts.most = self.devices - self.gangs.taken
            name = self.hosts.place(spec.id, 1 / placement.sharing)
        else:
            if not self.gangs.idle(placement.devices):
                self._clear(placement.devices)
            name = self.gangs.place(spec.id, placement.devices)
        return Start(spec=spec, placement=placement, host=name)

    def _clear(self, count: int) -> None:
        """End what is idle until so many devices are free."""
        for gang in self.gangs.idle():
            if self._free < count:
                self.gangs.end(gang)
        for name in self.hosts.idle():
            if self._free < count:
                self.hosts.end(name)

    @property
    def _free(self) -> int:
        return self.devices - self.gangs.taken - len(self.hosts.handles)

    @property
    def _of_idle_gangs(self) -> int:
        return sum(gang.size for gang in self.gangs.idle())

    def drop(self) -> None:
        """Let go of all gangs with what they train, as when the study stops before its end."""
        for gang in self.gangs.there.values():
            gang.drop()
