"""The study's hosts, seen from the driver: started where there is room, filled evenly, given back.

The driver owns them: when it dies, they do. It knows at any moment which trial is on which host, so
nothing has to be agreed between processes, and a host that is lost only means that its trials are
given to another.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorClass
from ray.exceptions import ActorUnavailableError, RayError

from study.cluster import AGAIN_SECONDS, fits
from study.devices import Devices
from trainables.errors import BadInput

IDLE_SECONDS = 30.0
"""After which a host without trials is given back to a cluster that others use too."""
WANTED_SECONDS = 5.0
"""The same, if trials wait for a host and there are more hosts than room."""


class Hosts:
    """Starts hosts, and knows which trial is where."""

    def __init__(self, actor: type, config: Any, devices: Devices) -> None:
        """``actor`` is ``study.actor.HostActor``, made with ``config``."""
        self.devices, self.config = devices, config
        self.actor: ActorClass[Any] = ray.remote(actor)
        self.handles: dict[str, Any] = {}
        """Name -> host."""
        self.trials: dict[str, str] = {}
        """Trial id -> name of its host."""
        self.shares: dict[str, float] = {}
        """Trial id -> what it takes of its host."""
        self.most, self._started = devices.hosts, 0
        """How many there may be; see also ``study.lanes``."""
        self._broken = 0
        """Those that could not be started."""
        self._awaited: dict[str, _Asked] = {}
        """Name -> what it was asked, of those that may not live: no trial is given to them."""
        self._idle_since: dict[str, float] = {}

    def start(self) -> None:
        """Start all of them now, and not one after the other when they are needed."""
        devices = self.devices
        room: dict[str, float] = ray.available_resources()
        free = int(room.get("GPU", 0) if devices.gpus else room.get("CPU", 0) // devices.cpus)
        for number in range(devices.hosts - len(self.handles)):
            name = self._start()
            if number >= max(free, 1):
                self._await(name)

    def room(self, share: float) -> bool:
        """There is a place for one more trial that takes so much of a host.

        Raises:
            BadInput: no host could be started.
        """
        return bool(self._free(share)) or len(self.handles) < self.most - self._broken

    def place(self, trial_id: str, share: float) -> str:
        """Give a trial to the host with most room; the host's name."""
        free = self._free(share)
        name = min(free, key=self._load) if free else self._start()
        if not free:
            self._await(name)
        self.trials[trial_id], self.shares[trial_id] = name, share
        self._idle_since.pop(name, None)
        return name

    def lost(self, trial_id: str) -> str:
        """A trial's host, or its client, has died; the name of the host on which it goes on.

        That may be full; then its trials take turns. If none lives it is the old one, which Ray
        starts again where there is room, or, if that cannot start at all, one that may yet come.
        """
        old = self.trials[trial_id]
        if old in self.handles:
            self._await(old)
            ray.wait([self._awaited[old].answer], timeout=0.2)
        living = self._living()
        coming = [old] if old in self.handles else list(self.handles)
        self.trials[trial_id] = new = min(living or coming, key=self._load)
        self._idle_since.pop(new, None)
        if new != old:
            self._leave(old, trial_id)
        return new

    def left(self, trial_id: str) -> None:
        """A trial has ended, or was stopped."""
        name = self.trials.pop(trial_id)
        self._leave(name, trial_id)

    def give_back(self, *, all_idle: bool) -> None:
        """End hosts without trials: all of them, or those that had none for a while.

        Raises:
            BadInput: no host could be started.
        """
        now = time.monotonic()
        patience = IDLE_SECONDS if self.devices.shared else math.inf
        without = {name: now - self._idle_since.setdefault(name, now) for name in self.idle()}
        for name, seconds in without.items():
            if all_idle or seconds > patience:
                self.end(name)
        living = set(self._living())
        if not living.issuperset(self.trials.values()):
            self._make_way([name for name in self.idle() if without[name] > WANTED_SECONDS], living)

    def idle(self) -> list[str]:
        """Names of those that have no trial."""
        return [name for name in self.handles if not self._load(name)]

    def end(self, name: str) -> None:
        """End one that has no trial."""
        self._idle_since.pop(name, None)
        self._awaited.pop(name, None)
        ray.kill(self.handles.pop(name))

    def _make_way(self, idle: list[str], living: set[str]) -> None:
        """Trials wait for a host, on a cluster that came back smaller, say: end as many of ``idle``
        as there are too many hosts for the nodes, first those that wait for a node too. A host that
        has a node and only takes its time to load costs no other its place."""
        if idle:
            surplus = max(0, len(self.handles) - fits(self.devices))
            for name in sorted(idle, key=lambda name: name in living)[:surplus]:
                self.end(name)

    def _start(self) -> str:
        name = f"host-{self._started}"
        self._started += 1
        self.handles[name] = self.actor.options(
            name=name,
            num_cpus=self.devices.cpus,
            num_gpus=self.devices.gpus,
            max_restarts=-1,
            scheduling_strategy="SPREAD",
        ).remote(self.config)
        return name

    def _await(self, name: str) -> None:
        """Give it no trial before it has answered."""
        self._awaited[name] = _Asked(answer=self.handles[name].alive.remote())

    def _leave(self, name: str, trial_id: str) -> None:
        if name in self.handles:
            self.handles[name].leave.remote(trial_id)
            if not self._load(name):
                self._idle_since[name] = time.monotonic()

    def _lay_off(self, name: str, error: RayError) -> None:
        """Its start failed, not by the machine's fault: it would again."""
        del self.handles[name]
        self._broken += 1
        if not self.handles:
            raise BadInput(f"no host could be started: {str(error).strip().splitlines()[-1]}")

    def _living(self) -> list[str]:
        names = {asked.answer: name for name, asked in self._awaited.items()}
        if names:
            answered, _ = ray.wait(list(names), num_returns=len(names), timeout=0)
            for answer in answered:
                self._hear(names[answer], answer)
        return [name for name in self.handles if name not in self._awaited]

    def _hear(self, name: str, answer: Any) -> None:
        """Take in what one that may not live has answered, or Ray for it."""
        asked = self._awaited.pop(name)
        try:
            ray.get(answer)
        except ActorUnavailableError:  # its node is lost; see ``wait_for``
            if asked.again < time.monotonic():
                self._await(name)
            else:
                self._awaited[name] = asked
        except RayError as error:
            self._lay_off(name, error)

    def _free(self, share: float) -> list[str]:
        # Shares are fractions that need not add up to a whole exactly.
        return [name for name in self._living() if self._load(name) + share < 1.001]

    def _load(self, name: str) -> float:
        return sum(self.shares[trial] for trial, host in self.trials.items() if host == name)


@dataclass(kw_only=True, eq=False)
class _Asked:
    """A host was asked whether it lives."""

    answer: Any
    """To come."""
    again: float = field(default_factory=lambda: time.monotonic() + AGAIN_SECONDS)
    """When to ask once more, if it is not there by then."""
