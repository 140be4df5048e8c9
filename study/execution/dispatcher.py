"""Assigns each trial a share of a host, or a gang of several devices, and keeps all devices busy.

Devices are few and pass from one trial to the next. A gang starts once enough devices are free,
counting those of idle hosts and idle gangs, and never holds some of them while it waits for the
others. A trial for which there is no room waits here. Younger trials that need less may overtake
it, so that no device idles, but only ``PATIENCE`` of them: after that, devices that become free are
kept for the waiting trial. Nothing here calls Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from study.execution.gang_pool import GangPool
from study.execution.host_pool import HostPool
from study.planning.arm_placements import ArmPlacements
from study.planning.placement import Placement
from study.trials.spec import TrialSpec

PATIENCE = 4
"""Number of younger trials that may begin before one that waits."""


@dataclass(kw_only=True)
class _Waiting:
    """A trial that was drawn and has no devices yet."""

    spec: TrialSpec
    placement: Placement
    passed: int = 0
    """Number of younger trials that have begun since this one waits."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A trial that can begin, and the host or gang that is to run it."""

    spec: TrialSpec
    placement: Placement
    host: str
    """Name of the host or gang."""


class Dispatcher:
    """Assigns the trials of a study to its hosts and gangs."""

    def __init__(self, hosts: HostPool, gangs: GangPool, placements: ArmPlacements) -> None:
        self.hosts, self.gangs, self.placements = hosts, gangs, placements
        self.devices = hosts.partition.hosts
        """Number of devices of the study."""
        self._waiting: list[_Waiting] = []
        self._begun: dict[str, Placement] = {}
        """Trial id -> placement with which the trial began."""

    @property
    def concurrency(self) -> int:
        """Largest number of trials at a time."""
        return self.placements.concurrency(self.hosts.partition)

    def start(self) -> None:
        """Start hosts or gangs before the first trial, if all trials take equally many devices."""
        sizes = self.placements.sizes
        if sizes == {1}:
            self.hosts.start()
        elif len(sizes) == 1:
            (size,) = sizes
            for _ in range(min(self.devices // size, self.concurrency)):
                self.gangs.start(size)

    def next(self, draw: Callable[[], TrialSpec | None]) -> Assignment | None:
        """The next trial that can begin, a waiting one or one from ``draw``; None if none can.

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
            placement = self.placements.find(spec)
            if self._room(placement):
                return self._begin(spec, placement)
            self._waiting.append(_Waiting(spec=spec, placement=placement))
        return None

    def again(self, spec: TrialSpec) -> str:
        """Let a trial that ran out of memory begin again, once, if its placement takes less memory
        now. Return the note for its record; empty if the trial does not begin again."""
        note = self.placements.out_of_memory(spec, self._begun[spec.id])
        if note:
            self._waiting.append(_Waiting(spec=spec, placement=self.placements.find(spec)))
        return note

    @property
    def waits(self) -> bool:
        """Whether a trial was drawn that has not begun."""
        return bool(self._waiting)

    def lost(self, trial_id: str) -> str:
        """Move a trial whose host or gang has died; return the name of the host or gang where it
        goes on."""
        gang = self.gangs.find(trial_id)
        return self.gangs.lost(gang) if gang is not None else self.hosts.lost(trial_id)

    def left(self, trial_id: str) -> None:
        """Free the devices that a trial held which has ended or was stopped."""
        gang = self.gangs.find(trial_id)
        if gang is not None:
            self.gangs.left(gang)
        else:
            self.hosts.left(trial_id)

    def give_back(self, *, all_idle: bool) -> None:
        """End idle hosts and gangs: all of them, or those that have been idle for a while.

        Raises:
            BadInput: no host, or no gang, could be started.
        """
        self.hosts.give_back(all_idle=all_idle)
        self.gangs.give_back(all_idle=all_idle)

    def _any_room(self) -> bool:
        """Whether a trial with any of the study's placements could begin now."""
        return any(self._room(placement) for placement in self.placements.every)

    def _room(self, placement: Placement) -> bool:
        """Whether a trial with this placement could begin now."""
        if placement.devices == 1:
            self.hosts.most = self.devices - self.gangs.taken
            if self.hosts.room(1 / placement.sharing):
                return True
            return bool(self.gangs.idle())
        if self.gangs.idle(placement.devices):
            return True
        return self._free + len(self.hosts.idle()) + self._of_idle_gangs >= placement.devices

    def _begin(self, spec: TrialSpec, placement: Placement) -> Assignment:
        """Assign a trial to a host or gang, after ending idle ones that are in its way."""
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
        return Assignment(spec=spec, placement=placement, host=name)

    def _clear(self, count: int) -> None:
        """End idle gangs and hosts until ``count`` devices are free."""
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
        for gang in self.gangs.handles.values():
            gang.drop()
