"""How a cluster is divided: into devices for hosts, and devices into places for trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.errors import BadInput

PLACES = 8
"""Trials that may share a device, as ``concurrency`` says. If it says nothing: on CUDA as many as
fit by prediction; a processor takes one, since it gains little by more, and only where it has
nothing of the image encoder to compute."""


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
    host_gib: float = 0.0
    """Memory beside each CUDA device, to which a trial may be offloaded."""
    predicting: bool = False
    """What a trial takes of a device follows from its predicted memory: see ``study.lanes``."""


def divide(
    nodes: Sequence[Mapping[str, float]],
    concurrency: int | None,
    *,
    shared: bool,
    per_trial: int = 1,
    alone: bool = False,
    predicting: bool = False,
) -> Devices:
    """Divide the cluster: a host for each CUDA device, or for each processor where there is none.

    ``nodes``: ``CPU``, ``GPU`` and ``memory`` (bytes) of each. ``per_trial``: how many devices a
    trial takes. ``alone``: no two trials share one. ``predicting``: see ``Devices``.

    Raises:
        BadInput: more trials at a time than there are places, or more devices for a trial than
            there are.
    """
    cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    if not (cpus or gpus) and shared and concurrency is not None and concurrency >= 1:
        # A cluster that scales itself and has no worker yet: hosts that wait make it start some, so
        # many that no two trials share a device.
        return Devices(
            hosts=concurrency * per_trial,
            cpus=1,
            gpus=1,
            places=1,
            concurrency=concurrency,
            shared=shared,
            predicting=predicting and per_trial == 1,
        )
    units = gpus or cpus
    if not units:
        raise no_worker()
    kind = "CUDA devices" if gpus else "processors"
    if not 1 <= per_trial <= units:
        raise BadInput(f"--devices-per-trial must be 1 to {units} (all {kind}), not {per_trial}")
    places = 1 if per_trial > 1 or alone else PLACES
    most = units // per_trial * places
    if concurrency is not None and not 1 <= concurrency <= most:
        each = f", {places} trials each" if places > 1 else ""
        each += f", {per_trial} for each trial" if per_trial > 1 else ""
        each += ", which no trials share where their costs decide" if alone else ""
        raise BadInput(
            f"--concurrency must be 1 to {most} ({units} {kind}{each}), not {concurrency}"
        )
    trials = concurrency or units // per_trial * (places if predicting and gpus else 1)
    hosts = units if predicting else min(units, trials * per_trial)
    # A host is on one node, so it cannot have more than a node has for each device.
    each_node = [
        int(node.get("CPU", 0)) // max(1, int(node.get("GPU", 0)))
        for node in nodes
        if node.get("GPU" if gpus else "CPU", 0) >= 1
    ]
    beside = [node.get("memory", 0) / node["GPU"] for node in nodes if node.get("GPU", 0) >= 1]
    return Devices(
        hosts=hosts,
        cpus=max(1, min(cpus // hosts, *each_node)),
        gpus=1 if gpus else 0,
        places=-(-trials // hosts),
        concurrency=trials,
        shared=shared,
        host_gib=min(beside, default=0) / 2**30,
        predicting=predicting,
    )


def no_worker() -> BadInput:
    """The error of a cluster on which no trial can run."""
    return BadInput(
        "the Ray cluster has no worker: start one (for a cluster that starts them itself, say "
        "how many trials may want one: --concurrency N)"
    )
