"""Sets up where a study runs: the devices of its hosts and gangs, and the placement of each arm."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from study.config.definition import StudyDefinition
from study.config.deployment import Deployment
from study.planning.arm_placements import ArmPlacements, PlacedArms, uniform_placements
from study.planning.cluster_partition import ClusterPartition, divide, no_worker
from trainables.devices.kinds import SHARED
from trainables.engine.deepspeed_config import partitions_weights

if TYPE_CHECKING:
    from study.execution.dispatcher import Dispatcher
    from study.worker.hardware import Hardware
    from study.worker.zygote import Zygote
    from trainables.data.common.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class InspectedCluster:
    """Result of ``inspect_cluster``: hardware, and how devices are divided."""

    partition: ClusterPartition
    """Division of the devices among hosts and trials."""
    hardware: Hardware
    """Hardware of the nodes that run trials."""


def inspect_cluster(
    definition: StudyDefinition,
    deployment: Deployment,
    zygote: Zygote,
    dataset: Dataset,
    say: Callable[[str], None],
    *,
    starting: bool,
) -> InspectedCluster:
    """Divide the devices of the cluster among hosts and trials. The zygote is given the dataset
    and loads in the meantime. With ``starting``, a cluster is started on this machine if no address
    is given. ``say`` shows the user a line: that Ray is started once more, or that a cluster has no
    worker yet.

    Raises:
        BadInput: there is no such cluster, none of its nodes can run trials, or it has fewer
            devices than were asked for.
    """
    from study.execution import cluster
    from study.storage import faults, scratch

    if deployment.address is None:
        zygote.take(dataset)
        if starting:
            faults.check(scratch.parent("ray"))  # where Ray has its session
            cluster.connect(None, say)
        hardware = zygote.hardware
        nodes = cluster.nodes() if starting else [_this_machine(hardware)]
    else:
        cluster.connect(deployment.address)
        nodes = cluster.nodes()
        if deployment.concurrency is None and not any(n.get("CPU") or n.get("GPU") for n in nodes):
            raise no_worker()
        hardware = cluster.hardware(definition.precision, say)
        zygote.take(dataset, hardware)
    memory_known = deployment.device_gib is not None or hardware.shared
    partition = divide(
        nodes,
        deployment.concurrency,
        shared=deployment.address is not None,
        per_trial=deployment.devices_per_trial or 1,
        alone=definition.costs_decide,
        predicting=deployment.leaves_placement_open(definition) and memory_known,
        untried=hardware.untried,
    )
    return InspectedCluster(partition=partition, hardware=hardware)


def _this_machine(hardware: Hardware) -> Mapping[str, float]:
    """Resources of this machine, in the form in which Ray describes a node."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"CPU": os.cpu_count() or 1, "GPU": hardware.devices * hardware.shared, "memory": memory}


def open_dispatcher(
    definition: StudyDefinition,
    deployment: Deployment,
    inspected: InspectedCluster,
    zygote: Path,
    say: Callable[[str], None],
) -> Dispatcher:
    """Make the study's hosts and gangs. They start at once, to be ready when the plan is shown,
    unless placements must be predicted first.

    Args:
        definition: what the study asks.
        deployment: where it runs.
        inspected: devices on which it runs.
        zygote: socket at which hosts of this machine ask to be forked.
        say: shows the user a line, about gangs that do not start.
    """
    from study.execution.dispatcher import Dispatcher
    from study.execution.gang_pool import GangPool
    from study.execution.host_pool import HostPool
    from study.worker.host_actor import HostActor
    from study.worker.host_config import HostConfig

    partition = inspected.partition
    config = HostConfig(
        workload=replace(definition.workload, precision=inspected.hardware.precision),
        ood_workloads=definition.ood_workloads,
        study_folder=deployment.study_folder.absolute(),
        regime=definition.regime,
        trials_per_host=partition.trials_per_host,
        threads=partition.cpus,
        zygote=None if partition.gpus or inspected.hardware.devices else zygote,
    )
    dispatcher = Dispatcher(
        HostPool(HostActor, config, partition),
        GangPool(replace(config, trials_per_host=1), partition, say),
        _uniform_on(partition, definition, deployment),
    )
    if not partition.predicting:
        start_workers(deployment, dispatcher)
    return dispatcher


def _uniform_on(
    partition: ClusterPartition, definition: StudyDefinition, deployment: Deployment
) -> ArmPlacements:
    """Uniform placements on the devices of a cluster."""
    return uniform_placements(
        definition,
        deployment,
        trials_per_host=partition.trials_per_host,
        cuda=partition.kind in SHARED,
    )


def measure_and_place(
    definition: StudyDefinition,
    deployment: Deployment,
    inspected: InspectedCluster,
    zygote: Zygote,
    say: Callable[[str], None],
    *,
    starting: bool,
) -> PlacedArms:
    """Place each arm of the study, and the untuned model.

    If placements are predicted from memory, the prediction is corrected by three measured steps of
    each arm. They run on a device of the cluster or, where none is started (see
    ``inspect_cluster``), of this machine.

    Raises:
        BadInput: the model, the data and the recipes do not go together, or no arm fits.
    """
    partition, hardware = inspected.partition, inspected.hardware
    if not partition.predicting:
        placements = _uniform_on(partition, definition, deployment)
        return PlacedArms(profile=zygote.profile(), placements=placements, nowhere={})
    from study.execution.calibration import CalibrationActor, Calibrator
    from study.planning import memory_prediction

    workload = replace(definition.workload, precision=hardware.precision)
    calibrator = Calibrator(workload, partition) if starting or deployment.address else None
    profile = zygote.profile()
    recipes, batch = profile.recipes(definition.space), profile.batch(definition.budget)
    probed = (
        calibrator.take(recipes, batch, say)
        if calibrator
        else CalibrationActor(workload).probe(recipes, batch)
    )
    return memory_prediction.place_arms(
        definition,
        profile.with_probes(probed),
        partition,
        precision=hardware.precision,
        device_gib=deployment.device_gib or hardware.device_gib,
    )


def start_workers(deployment: Deployment, dispatcher: Dispatcher) -> None:
    """Start hosts and gangs, unless the study has its results already. For an engine that divides
    the weights among devices (ZeRO-3), the base model is loaded into host memory."""
    for pool, several in ((dispatcher.hosts, False), (dispatcher.gangs, True)):
        kinds = [p.deepspeed for p in dispatcher.placements.every if (p.devices > 1) == several]
        if any(partitions_weights(kind) for kind in kinds):
            workload = replace(pool.config.workload, resident=False)
            pool.config = replace(pool.config, workload=workload)
    if not deployment.study_folder.results.exists():
        dispatcher.start()
