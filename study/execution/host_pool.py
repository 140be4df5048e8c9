"""Starts hosts where there is room, fills them evenly with trials, and ends those without trials.

The driver owns the hosts: when it dies, they do. It knows at any moment which trial is on which
host, so processes have nothing to agree on. When a host is lost, its trials go to another.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorClass
from ray.exceptions import ActorUnavailableError, RayError

from study.execution.cluster import AGAIN_SECONDS, fits
from study.planning.cluster_partition import IDLE_SECONDS, ClusterPartition
from study.worker.orders import ForgetTrial
from trainables.errors import BadInput

WANTED_SECONDS = 5.0
"""Seconds after which a host without trials is ended if trials wait for a host and the nodes have
room for fewer hosts than there are."""


class HostPool:
    """Starts hosts, and knows which trial is on which host."""

    def __init__(self, actor: type, config: Any, partition: ClusterPartition) -> None:
        """``actor`` is ``study.worker.host_actor.HostActor``, which is made with ``config``."""
        self.partition, self.config = partition, config
        self.actor: ActorClass[Any] = ray.remote(actor)
        self.handles: dict[str, Any] = {}
        """Host name -> actor."""
        self.trials: dict[str, str] = {}
        """Trial id -> name of its host."""
        self.shares: dict[str, float] = {}
        """Trial id -> share of its host that it takes, 0 to 1."""
        self.most = partition.hosts
        """Largest number of hosts; the dispatcher lowers it while gangs hold devices."""
        self._started = 0
        """Number of hosts that were started so far."""
        self._failed_starts = 0
        """Number of hosts that could not be started."""
        self._awaited: dict[str, _Asked] = {}
        """Host name -> pending question whether the host is alive; until it answers, the host gets
        no trial."""
        self._idle_since: dict[str, float] = {}

    def start(self) -> None:
        """Start all hosts now, instead of one after another as trials need them."""
        partition = self.partition
        room: dict[str, float] = ray.available_resources()
        free = int(room.get("GPU", 0) if partition.gpus else room.get("CPU", 0) // partition.cpus)
        for number in range(partition.hosts - len(self.handles)):
            name = self._start()
            if number >= max(free, 1):
                self._await(name)

    def room(self, share: float) -> bool:
        """Whether there is room for one more trial that takes ``share`` of a host.

        Raises:
            BadInput: no host could be started.
        """
        return bool(self._free(share)) or len(self.handles) < self.most - self._failed_starts

    def place(self, trial_id: str, share: float) -> str:
        """Assign a trial to the host with most room, or to a new one; return the host's name."""
        free = self._free(share)
        name = min(free, key=self._load) if free else self._start()
        if not free:
            self._await(name)
        self.trials[trial_id], self.shares[trial_id] = name, share
        self._idle_since.pop(name, None)
        return name

    def lost(self, trial_id: str) -> str:
        """Move a trial whose host or client has died; return the name of the host where it goes on.

        That host may be full; its trials take turns then. If no host is alive, it is the old one,
        which Ray restarts where there is room, or, if the old one cannot be started at all, one
        that may still come up.
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
        """Remove a trial that has ended or was stopped from its host."""
        name = self.trials.pop(trial_id)
        self._leave(name, trial_id)

    def give_back(self, *, all_idle: bool) -> None:
        """End hosts without trials: all of them, or, on a shared cluster, those that have been idle
        for a while. If trials wait for a host and there are more hosts than room, idle hosts are
        ended too.

        Raises:
            BadInput: no host could be started.
        """
        now = time.monotonic()
        patience = IDLE_SECONDS if self.partition.shared else math.inf
        without = {name: now - self._idle_since.setdefault(name, now) for name in self.idle()}
        for name, seconds in without.items():
            if all_idle or seconds > patience:
                self.end(name)
        living = set(self._living())
        if not living.issuperset(self.trials.values()):
            self._make_way([name for name in self.idle() if without[name] > WANTED_SECONDS], living)

    def idle(self) -> list[str]:
        """Names of the hosts that have no trial."""
        return [name for name in self.handles if not self._load(name)]

    def end(self, name: str) -> None:
        """End a host that has no trial."""
        self._idle_since.pop(name, None)
        self._awaited.pop(name, None)
        ray.kill(self.handles.pop(name))

    def _make_way(self, idle: list[str], living: set[str]) -> None:
        """End surplus hosts while trials wait for one, for instance on a cluster that came back
        smaller: as many of ``idle`` as there are more hosts than the nodes have room for, those
        that wait for a node first. A host that has a node and is only slow to load costs no other
        host its place."""
        if idle:
            surplus = max(0, len(self.handles) - fits(self.partition))
            for name in sorted(idle, key=lambda name: name in living)[:surplus]:
                self.end(name)

    def _start(self) -> str:
        name = f"host-{self._started}"
        self._started += 1
        self.handles[name] = self.actor.options(
            name=name,
            num_cpus=self.partition.cpus,
            num_gpus=self.partition.gpus,
            max_restarts=-1,
            scheduling_strategy="SPREAD",
        ).remote(self.config)
        return name

    def _await(self, name: str) -> None:
        """Ask a host whether it is alive, and give it no trial before it has answered."""
        self._awaited[name] = _Asked(answer=self.handles[name].alive.remote())

    def _leave(self, name: str, trial_id: str) -> None:
        if name in self.handles:
            self.handles[name].forget.remote(ForgetTrial(trial_id=trial_id))
            if not self._load(name):
                self._idle_since[name] = time.monotonic()

    def _lay_off(self, name: str, error: RayError) -> None:
        """Drop a host whose start failed by no fault of its machine: it would fail again.

        Raises:
            BadInput: no other host is left.
        """
        del self.handles[name]
        self._failed_starts += 1
        if not self.handles:
            raise BadInput(f"no host could be started: {str(error).strip().splitlines()[-1]}")

    def _living(self) -> list[str]:
        """Names of the hosts that are known to be alive."""
        names = {asked.answer: name for name, asked in self._awaited.items()}
        if names:
            answered, _ = ray.wait(list(names), num_returns=len(names), timeout=0)
            for answer in answered:
                self._hear(names[answer], answer)
        return [name for name in self.handles if name not in self._awaited]

    def _hear(self, name: str, answer: Any) -> None:
        """Take in the answer of a host that may be dead, or Ray's error in place of an answer."""
        asked = self._awaited.pop(name)
        try:
            ray.get(answer)
        except ActorUnavailableError:  # its node is lost: it may come back on another
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
    """A pending question to a host whether it is alive."""

    answer: Any
    """Ray's reference to the answer."""
    again: float = field(default_factory=lambda: time.monotonic() + AGAIN_SECONDS)
    """Monotonic time from which the host may be asked once more."""
