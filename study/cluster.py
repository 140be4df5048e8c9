"""The Ray cluster of a study: joined, divided among hosts, and waited for where it is lost."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.errors import BadInput

PLACES_ON_CUDA = 8
"""Trials that may share a CUDA device: as many as fit into its memory by prediction, or as
``concurrency`` says."""
PLACES_ON_CPU = 1
"""Trials that share a processor."""
AGAIN_SECONDS = 0.5
"""Between two questions to an actor whose node may be lost."""


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
    nodes = [node["Resources"] for node in _living()]
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

    task: Any = ray.remote(num_gpus=1, num_cpus=0)(ask)
    answers = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in _living()
        if node["Resources"].get("GPU", 0) >= 1
    ]
    found: list[float] = ray.get(answers)
    return min(found)


def fits(devices: Devices) -> int:
    """Hosts that the nodes which are there now have room for, if nobody else uses them."""
    kind, each = ("GPU", devices.gpus) if devices.gpus else ("CPU", devices.cpus)
    return sum(int(node["Resources"].get(kind, 0) // each) for node in _living())


def _living() -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in told if node["Alive"]]


def wait_for(method: Any, *, seconds: float = math.inf) -> None:
    """Wait until an actor answers whose node may be lost: it is back when Ray has given the node up
    and found room on another, and whoever asks sooner is told at once that it is not there.

    Ray would ask again by itself, and tell the user's terminal so each time (``max_task_retries``).

    Args:
        method: of the actor, without arguments.
        seconds: to wait at most.

    Raises:
        RayActorError: it is gone for good.
    """
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            ray.get(method.remote())
            return
        except ActorUnavailableError:
            time.sleep(AGAIN_SECONDS)
