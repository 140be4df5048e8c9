"""Ends processes of a study that hang, so that their trials go on elsewhere.

Trials of a host whose process dies go on at once on another host. A process that is stopped, or
that waits for a file on a server which does not answer, would be waited for without end. So the
driver asks every so often how much processor time each process of the study has taken, and kills
one that has taken none for ``still_seconds``. From then on everything is as if it had died.

Two kinds of time are asked for. A task on each node measures the study's Ray processes, which take
a little time even while they wait. What trains a trial may hang although the host's actor still
answers, so a host that has trials is asked for the processor time of its training alone. A worker
of a gang that hangs so is noticed by the others, which wait for it (``gang_pool``).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import ray
from ray._private.state import actors
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.execution.gang_pool import GangPool
from study.execution.host_pool import HostPool
from study.trials.text import wait_text
from study.worker.forked_host import (
    LOOKS,
    Stillness,
    processor_seconds,
)
from trainables.devices.environment import still_seconds


@dataclass(frozen=True, kw_only=True)
class _Process:
    """A process of an actor of the study."""

    node: str
    """Ray's id of its node."""
    address: str
    """Address of its node."""
    pid: int
    name: str
    """Name of the host or gang, or what it is."""


@dataclass(kw_only=True, eq=False)
class _Question:
    """A question whose answer has not come yet."""

    answer: Any
    """Ray's reference to the answer."""
    asked: Sequence[_Process] | str
    """Processes of a node, or the name of a host."""
    looks: int = 0
    """Number of looks at which there was no answer."""


@dataclass(kw_only=True)
class HungProcesses:
    """Finds the processes of a study that hang, and ends them."""

    hosts: HostPool
    gangs: GangPool
    hit: set[str] = field(default_factory=set)
    """Ids of trials that lost a process because it hung, until ``look`` returns them."""
    _questions: list[_Question] = field(default_factory=list)
    _stillness: dict[_Process | str, Stillness] = field(default_factory=dict)
    """Process, or name of a host -> how long it has computed nothing."""
    _look_at: float = field(default_factory=lambda: time.monotonic() + still_seconds() / LOOKS)
    """Monotonic time of the next look."""
    _late: set[str] = field(default_factory=set)
    """Names of hosts of which the user was told that they have not come up."""

    def look(self) -> set[str]:
        """Look, if it is time to, and end what hangs. It waits for nothing.

        Returns:
            Ids of the trials that lost a process because it hung, since the last call. Where it is
            not known whose process it was, they are all trials that run.
        """
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + still_seconds() / LOOKS
            self._hear()
            self._ask()
        for gang in list(self.gangs.handles.values()):
            while gang.hung:  # a thread of the gang adds to them
                self.hit.add(gang.hung.pop())
        hit, self.hit = self.hit, set()
        return hit

    def _ask(self) -> None:
        """Ask each node, and each host with trials, that has not still to answer."""
        waiting = [q.asked for q in self._questions]
        asked_nodes = {asked[0].node for asked in waiting if not isinstance(asked, str)}
        nodes: dict[str, list[_Process]] = {}
        for process in _processes():
            nodes.setdefault(process.node, []).append(process)
        for node, processes in nodes.items():
            if node not in asked_nodes:
                answer = _on(node, _times).remote([process.pid for process in processes])
                self._questions.append(_Question(answer=answer, asked=processes))
        busy = {name for name in self.hosts.trials.values() if name in self.hosts.handles}
        for name in busy - {asked for asked in waiting if isinstance(asked, str)}:
            answer = self.hosts.handles[name].processor_seconds.remote()
            self._questions.append(_Question(answer=answer, asked=name))
        known = {process for processes in nodes.values() for process in processes} | busy
        self._stillness = {key: value for key, value in self._stillness.items() if key in known}

    def _hear(self) -> None:
        """Take in the answers that have come."""
        answers = [question.answer for question in self._questions]
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=0) if answers else ([], [])
        asked, self._questions = self._questions, []
        for question in asked:
            if question.answer not in ready:
                question.looks += 1
                self._questions.append(question)
                self._tell_of_late(question)
                continue
            with suppress(RayError):  # the node or the host has died, or is about to come back
                self._judge(question.asked, ray.get(question.answer))

    def _judge(self, asked: Sequence[_Process] | str, taken: Any) -> None:
        """End what hangs of the processes of a node, or a host. ``taken`` is the processor time in
        seconds of each, or of the host; None if there is no such process or nothing to do."""
        if isinstance(asked, str):
            if taken is None:
                self._stillness.pop(asked, None)
            elif self._still(asked, taken) and asked in self.hosts.handles:
                self._say(asked, "")
                self.hit |= self._trials(asked)
                self.hosts.handles[asked].end.remote()
            return
        for process, seconds in zip(asked, taken, strict=True):
            if seconds is not None and self._still(process, seconds):
                self._say(process.name, f" (process {process.pid} on {process.address})")
                self.hit |= self._trials(process.name)
                _on(process.node, _kill).remote(process.pid)

    def _trials(self, name: str) -> set[str]:
        """Ids of the trials of a host or gang; of all that run, for any other process: clients and
        workers of gangs have no name that says whose they are."""
        on = dict(self.hosts.trials)
        on |= {gang.trial: gang.name for gang in self.gangs.handles.values() if gang.trial}
        known = name in self.hosts.handles or name in self.gangs.handles
        return {trial for trial, where in on.items() if where == name or not known}

    def _still(self, key: _Process | str, seconds: float) -> bool:
        """Whether what has taken so many seconds hangs. If so, it has as long again to end."""
        if not self._stillness.setdefault(key, Stillness()).look(seconds):
            return False
        del self._stillness[key]
        return True

    def _say(self, name: str, where: str) -> None:
        self.gangs.say(
            f"{name}{where} hangs: it has computed nothing for {wait_text(still_seconds())}. It is "
            "ended, and what it trained goes on elsewhere."
        )

    def _tell_of_late(self, question: _Question) -> None:
        """Tell the user once of a host that does not come up."""
        name = question.asked
        if question.looks >= 2 * LOOKS and isinstance(name, str) and name not in self._late:
            self._late.add(name)
            self.gangs.say(
                f"{name} does not come up: the cluster has no room for it, or "
                "the model or the data cannot be read there"
            )


def _processes() -> list[_Process]:
    """The processes of this study's actors that run."""
    job = ray.get_runtime_context().worker.current_job_id
    return [
        _Process(
            node=actor["Address"]["NodeID"],
            address=actor["Address"]["IPAddress"],
            pid=actor["Pid"],
            name=actor["Name"] or "a process of the study",
        )
        for actor in actors(job_id=job, actor_state_name="ALIVE").values()
    ]


def _on(node: str, task: Callable[..., Any]) -> Any:
    """A task on a node. It takes none of the resources, and so waits for nobody's trials."""
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0)(task).options(scheduling_strategy=strategy, max_retries=0)


def _times(pids: list[int]) -> list[float | None]:
    """Processor time in seconds of processes of this node; None for one that has ended."""
    taken: list[float | None] = []
    for pid in pids:
        try:
            taken.append(processor_seconds(pid))
        except psutil.Error:
            taken.append(None)
    return taken


def _kill(pid: int) -> None:
    """Kill a process of this node."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
