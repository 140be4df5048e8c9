"""Division of a cluster into hosts, and of each host among trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.config.deployment import MOST_SHARING
from trainables.devices.kinds import SHARED, VARIABLE, plural
from trainables.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class ClusterPartition:
    """Division of a cluster into hosts, and of each host among trials."""

    hosts: int
    """Number of hosts: processes that hold the model and train trials."""
    cpus: int
    """Processors of each host."""
    gpus: int
    """GPUs of each host."""
    trials_per_host: int
    """Trials at a time on each host."""
    concurrency: int
    """Trials at a time in the whole study."""
    shared: bool
    """Whether other users share the cluster."""
    host_gib: float = 0.0
    """Host memory in GiB beside each GPU, to which a trial may be offloaded."""
    predicting: bool = False
    """Whether predicted memory decides if a trial gets a share of a device, a whole one or several.
    If it does not, all trials get what the options say."""
    untried: str = ""
    """Kind of an accelerator that trains one trial at a time, since nobody has tried it: ``mps`` or
    ``xpu``; empty otherwise."""

    @property
    def kind(self) -> str:
        """Kind of the devices, as PyTorch calls it."""
        return self.untried or (SHARED[0] if self.gpus else "cpu")


def divide(
    nodes: Sequence[Mapping[str, float]],
    concurrency: int | None,
    *,
    shared: bool,
    per_trial: int = 1,
    alone: bool = False,
    predicting: bool = False,
    untried: str = "",
) -> ClusterPartition:
    """Divide the cluster: a host for each GPU, or for each processor where there is none.

    Args:
        nodes: ``CPU``, ``GPU`` and ``memory`` (bytes) of each node.
        concurrency: trials at a time; None: as many as the devices suggest.
        shared: whether other users share the cluster.
        per_trial: devices that a trial takes.
        alone: whether each trial has its devices to itself.
        predicting: whether predicted memory decides what a trial gets, as in ``ClusterPartition``.
        untried: as in ``ClusterPartition``.

    Raises:
        BadInput: more trials at a time than the devices can take, more devices for a trial than
            there are, or no worker at all.
    """
    cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    if untried:
        return _one_host(nodes, concurrency, shared=shared, per_trial=per_trial, untried=untried)
    if not (cpus or gpus) and shared and concurrency is not None and concurrency >= 1:
        # A cluster that scales itself and has no worker yet starts some for hosts that wait. There
        # are so many hosts that no two trials share a device.
        return ClusterPartition(
            hosts=concurrency * per_trial,
            cpus=1,
            gpus=1,
            trials_per_host=1,
            concurrency=concurrency,
            shared=shared,
            predicting=predicting and per_trial == 1,
        )
    units = gpus or cpus
    if not units:
        raise no_worker()
    kind = plural(SHARED[0] if gpus else "cpu")
    if not 1 <= per_trial <= units:
        raise BadInput(f"--devices-per-trial must be 1 to {units} (all {kind}), not {per_trial}")
    sharing = 1 if per_trial > 1 or alone else MOST_SHARING
    most = units // per_trial * sharing
    if concurrency is not None and not 1 <= concurrency <= most:
        each = f", {sharing} trials each" if sharing > 1 else ""
        each += f", {per_trial} for each trial" if per_trial > 1 else ""
        each += ", which no trials share where their costs decide" if alone else ""
        raise BadInput(
            f"--concurrency must be 1 to {most} ({units} {kind}{each}), not {concurrency}"
        )
    # Unless told otherwise, a GPU takes as many trials as fit by prediction. A processor
    # takes one, since it gains little by more, and that only where it has nothing of the image
    # encoder to compute.
    trials = concurrency or units // per_trial * (sharing if predicting and gpus else 1)
    hosts = units if predicting else min(units, trials * per_trial)
    # A host is on one node, so it cannot have more than a node has for each device.
    each_node = [
        int(node.get("CPU", 0)) // max(1, int(node.get("GPU", 0)))
        for node in nodes
        if node.get("GPU" if gpus else "CPU", 0) >= 1
    ]
    beside = [node.get("memory", 0) / node["GPU"] for node in nodes if node.get("GPU", 0) >= 1]
    return ClusterPartition(
        hosts=hosts,
        cpus=max(1, min(cpus // hosts, *each_node)),
        gpus=1 if gpus else 0,
        trials_per_host=-(-trials // hosts),
        concurrency=trials,
        shared=shared,
        host_gib=min(beside, default=0) / 2**30,
        predicting=predicting,
    )


def _one_host(
    nodes: Sequence[Mapping[str, float]],
    concurrency: int | None,
    *,
    shared: bool,
    per_trial: int,
    untried: str,
) -> ClusterPartition:
    """One host with one trial at a time, on an accelerator that nobody has tried. Ray counts those
    of some kinds (``xpu``) among its GPUs and those of others (``mps``) not at all.

    Raises:
        BadInput: more trials at a time are asked for, or several devices for a trial.
    """
    for option, asked in (("--concurrency", concurrency), ("--devices-per-trial", per_trial)):
        if asked not in (None, 1):
            raise BadInput(
                f"{option} must be 1 on {untried}, on which nobody has tried more, not {asked}; "
                f"{VARIABLE}=cpu computes on processors"
            )
    on_one = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
    return ClusterPartition(
        hosts=1,
        cpus=max(1, int(on_one.get("CPU", 0))),
        gpus=min(1, int(on_one.get("GPU", 0))),
        trials_per_host=1,
        concurrency=1,
        shared=shared,
        untried=untried,
    )


def no_worker() -> BadInput:
    """The error for a cluster on which no trial can run."""
    return BadInput(
        "the Ray cluster has no worker: start one (for a cluster that starts them itself, say "
        "how many trials may want one: --concurrency N)"
    )


IDLE_SECONDS = 30.0
"""Seconds after which a host without trials is given back to a cluster that others use too."""
