"""The study's hosts, seen from the driver: started where there is room, filled evenly, given back.

The driver owns them: when it dies, they do. It knows at any moment which trial is on which host, so
nothing has to be agreed between processes, and a host that is lost only means that its trials are
given to another.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorClass
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.errors import BadInput

PLACES_ON_CUDA = 8
"""Trials that may share a CUDA device: as many as fit into its memory by prediction, or as
``concurrency`` says."""
PLACES_ON_CPU = 1
"""Trials that share a processor."""
IDLE_SECONDS = 30.0
"""After which a host without trials is given back to a cluster that others use too."""
WANTED_SECONDS = 5.0
"""The same, if a host for which trials wait cannot start: its room may be what that one lacks."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """How the cluster is divided among hosts, and hosts among trials."""

    hosts: int
    cpus: int
    """Processors of each host."""
    gpus: int
    """CUDA devices of each host."""
    places: int
    """Trials at a time on each host."""
    concurrency: int
    """Trials at a time."""
    shared: bool
    """Others use the cluster too."""
    predicting: bool = False
    """What a trial takes of a device follows from its predicted memory: see ``study.lanes``."""


def connect(address: str | None) -> None:
    """Join the Ray cluster at ``address``, or start one on this machine.

    Raises:
        BadInput: there is no cluster at that address.
    """
    # Ray's own lines are for its developers; what a trial's process has to say is in its outcome.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise BadInput(
            f"no Ray cluster at --address {address!r} ({line}); leave it away to start one here "
            "(a cluster with token authentication wants RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN)"
        ) from None


def devices(
    concurrency: int | None, *, shared: bool, per_trial: int = 1, predicting: bool = False
) -> Devices:
    """Divide the cluster: a host for each CUDA device, or for each processor where there is none.

    ``per_trial``: how many of them a trial takes. ``predicting``: see ``Devices``.

    Raises:
        BadInput: more trials at a time than there are places, or more devices for a trial than
            there are.
    """
    told: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in told if node["Alive"]]
    cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    if not (cpus or gpus) and shared and concurrency is not None and concurrency >= 1:
        # A cluster that scales itself and has no worker yet: hosts that wait make it start some.
        return Devices(
            hosts=-(-concurrency // PLACES_ON_CUDA),
            cpus=1,
            gpus=1,
            places=min(concurrency, PLACES_ON_CUDA),
            concurrency=concurrency,
            shared=shared,
        )
    units = gpus or cpus
    if not units:
        raise BadInput(
            "the Ray cluster has no worker: start one (for a cluster that starts them itself, say "
            "how many trials may want one: --concurrency N)"
        )
    kind = "CUDA devices" if gpus else "processors"
    if not 1 <= per_trial <= units:
        raise BadInput(f"--devices-per-trial must be 1 to {units} (all {kind}), not {per_trial}")
    places = PLACES_ON_CUDA if gpus else PLACES_ON_CPU
    if per_trial > 1:
        places = 1
    most = units // per_trial * places
    if concurrency is not None and not 1 <= concurrency <= most:
        each = f", {places} trials each" if places > 1 else ""
        each += f", {per_trial} for each trial" if per_trial > 1 else ""
        raise BadInput(
            f"--concurrency must be 1 to {most} ({units} {kind}{each}), not {concurrency}"
        )
    trials = concurrency or units // per_trial * (places if predicting else 1)
    hosts = units if predicting else min(units, trials * per_trial)
    # A host is on one node, so it cannot have more than a node has for each device.
    each_node = [
        int(node.get("CPU", 0)) // max(1, int(node.get("GPU", 0)))
        for node in nodes
        if node.get("GPU" if gpus else "CPU", 0) >= 1
    ]
    return Devices(
        hosts=hosts,
        cpus=max(1, min(cpus // hosts, *each_node)),
        gpus=1 if gpus else 0,
        places=-(-trials // hosts),
        concurrency=trials,
        shared=shared,
        predicting=predicting,
    )


def device_gib() -> float:
    """Memory of the smallest CUDA device of the cluster."""

    def ask() -> float:
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory / 2**30)

    told: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    task: Any = ray.remote(num_gpus=1, num_cpus=0)(ask)
    answers = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in told
        if node["Alive"] and node["Resources"].get("GPU", 0) >= 1
    ]
    found: list[float] = ray.get(answers)
    return min(found)


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
        self._awaited: dict[Any, str] = {}
        """Answer to come -> name, of those that may not live: no trial is given to them."""
        self._idle_since: dict[str, float] = {}

    def start(self) -> None:
        """Start all of them now, and not one after the other when they are needed."""
        devices = self.devices
        room: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        fits = int(room.get("GPU", 0) if devices.gpus else room.get("CPU", 0) // devices.cpus)
        for number in range(devices.hosts - len(self.handles)):
            name = self._start()
            if number >= max(fits, 1):
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

        That may be full; then its trials take turns. If none lives it is the old one: Ray starts
        it again, where there is room.
        """
        old = self.trials[trial_id]
        if old in self.handles:
            ray.wait([self._await(old)], timeout=0.2)
        self.trials[trial_id] = new = min(self._living() or [old], key=self._load)
        self._idle_since.pop(new, None)
        if new != old:
            self._leave(old, trial_id)
        return new

    def left(self, trial_id: str) -> None:
        """A trial has ended, or was stopped."""
        name = self.trials.pop(trial_id)
        self._leave(name, trial_id)

    def give_back(self, *, all_idle: bool) -> None:
        """End hosts without trials: all of them, or those that had none for a while. That while is
        short if trials wait for a host that finds no room to start.

        Raises:
            BadInput: no host could be started.
        """
        now, living = time.monotonic(), set(self._living())
        wanted = not living.issuperset(self.trials.values())
        patience = WANTED_SECONDS if wanted else IDLE_SECONDS if self.devices.shared else math.inf
        for name in self.idle():
            if all_idle or now - self._idle_since.setdefault(name, now) > patience:
                self.end(name)

    def idle(self) -> list[str]:
        """Names of those that have no trial."""
        return [name for name in self.handles if not self._load(name)]

    def end(self, name: str) -> None:
        """End one that has no trial."""
        self._idle_since.pop(name, None)
        ray.kill(self.handles.pop(name))

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

    def _await(self, name: str) -> Any:
        """Give it no trial before it has answered; a restarted one answers when it is back."""
        answer: Any = self.handles[name].alive.options(max_task_retries=-1).remote()
        self._awaited[answer] = name
        return answer

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
        if self._awaited:
            answered, _ = ray.wait(list(self._awaited), num_returns=len(self._awaited), timeout=0)
            for answer in answered:
                name = self._awaited.pop(answer)
                try:
                    ray.get(answer)
                except RayError as error:
                    if name in self.handles:  # and was not given back before it answered
                        self._lay_off(name, error)
        awaited = set(self._awaited.values())
        return [name for name in self.handles if name not in awaited]

    def _free(self, share: float) -> list[str]:
        # Shares are fractions that need not add up to a whole exactly.
        return [name for name in self._living() if self._load(name) + share < 1.001]

    def _load(self, name: str) -> float:
        return sum(self.shares[trial] for trial, host in self.trials.items() if host == name)
