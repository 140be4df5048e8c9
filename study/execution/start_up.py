"""Sets up where a study runs: the devices of its hosts and gangs, and the placement of each arm."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.declare import Space
from study.config.deployment import Deployment
from study.config.settings import Settings
from study.planning.cluster_partition import ClusterPartition, divide, no_worker
from trainables.engine.deepspeed_config import partitions_weights
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.execution.dispatcher import Dispatcher
    from study.planning.arm_placements import ArmPlacements
    from study.planning.placement import Infeasible
    from study.planning.workload_profile import WorkloadProfile
    from study.worker.hardware import Hardware
    from study.worker.zygote import Zygote
    from trainables.data.common.dataset import Dataset

GANG_ENGINE = "2"
"""DeepSpeed setting of a trial on several devices: the lowest ZeRO stage that saves memory on each
of them."""


def uniform_placements(
    settings: Settings, space: Space, place: Deployment, *, trials_per_host: int, cuda: bool
) -> ArmPlacements:
    """One and the same placement for every arm, as the options say, with no regard to memory.
    ``trials_per_host`` is the number of trials that may share a device.

    Raises:
        BadInput: the devices of a trial cannot share a batch evenly, or have no memory.
    """
    from study.planning.arm_placements import ArmPlacements
    from study.planning.placement import uniform_placement

    if place.device_gib is not None and not 0 < place.device_gib < math.inf:
        raise BadInput(f"--device-gib must be more than 0, not {place.device_gib:g}")
    devices = 1 if place.devices_per_trial is None else place.devices_per_trial
    kind = settings.engine(cuda=cuda, sharing=trials_per_host > 1)
    if devices > 1 and settings.deepspeed == "auto":
        kind = GANG_ENGINE
    told = uniform_placement(
        devices=devices,
        deepspeed=kind,
        batch_size=settings.budget(space).batch_size,
        sharing=trials_per_host,
        reason="as told" if place.devices_per_trial else "memory is not looked at",
    )
    return ArmPlacements(dict.fromkeys(space.arms, told), told)


def inspect_cluster(
    settings: Settings, place: Deployment, zygote: Zygote, dataset: Dataset, *, starting: bool
) -> tuple[ClusterPartition, Hardware]:
    """The division of the cluster's devices among hosts and trials, and their hardware. The zygote
    is given the dataset and loads in the meantime. With ``starting``, a cluster is started on this
    machine if no address is given.

    Raises:
        BadInput: there is no such cluster, none of its nodes can run trials, or it has fewer
            devices than were asked for.
    """
    from study.execution import cluster
    from study.storage import faults

    if place.address is None:
        zygote.take(dataset)
        if starting:
            faults.check(Path(os.environ.get("RAY_TMPDIR", "/tmp")))  # where Ray has its session
            cluster.connect(None)
        hardware = zygote.hardware
        nodes = cluster.nodes() if starting else [_this_machine(hardware)]
    else:
        cluster.connect(place.address)
        nodes = cluster.nodes()
        if place.concurrency is None and not any(n.get("CPU") or n.get("GPU") for n in nodes):
            raise no_worker()
        hardware = cluster.hardware(settings.precision)
        zygote.take(dataset, hardware)
    devices = divide(
        nodes,
        place.concurrency,
        shared=place.address is not None,
        per_trial=place.devices_per_trial or 1,
        alone=settings.costs_decide,
        predicting=place.open(settings) and (place.device_gib is not None or hardware.cuda),
    )
    return devices, hardware


def _this_machine(hardware: Hardware) -> Mapping[str, float]:
    """Resources of this machine, in the form in which Ray describes a node."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"CPU": os.cpu_count() or 1, "GPU": hardware.devices, "memory": memory}


def open_dispatcher(
    settings: Settings,
    space: Space,
    place: Deployment,
    devices: ClusterPartition,
    hardware: Hardware,
    zygote: Path,
    say: Callable[[str], None],
) -> Dispatcher:
    """Hosts and gangs that begin to load at once: by the time that the plan is shown they are
    ready. ``zygote``: where hosts of this machine ask to be forked. ``say``: where a line goes
    that the user is to see, of gangs that do not start."""
    from study.execution.dispatcher import Dispatcher
    from study.execution.gang_pool import GangPool
    from study.execution.host_pool import HostPool
    from study.worker.host_actor import HostActor
    from study.worker.host_config import HostConfig

    config = HostConfig(
        workload=replace(settings.workload, precision=hardware.precision),
        others=settings.others,
        study_folder=place.study_folder,
        precision=hardware.precision,
        regime=settings.regime,
        places=devices.trials_per_host,
        threads=devices.cpus,
        zygote=None if devices.gpus else zygote,
    )
    cuda = devices.gpus > 0
    dispatcher = Dispatcher(
        HostPool(HostActor, config, devices),
        GangPool(replace(config, places=1), devices, say),
        uniform_placements(
            settings, space, place, trials_per_host=devices.trials_per_host, cuda=cuda
        ),
    )
    if not devices.predicting:
        start(place, dispatcher)
    return dispatcher


def place_arms(
    settings: Settings,
    space: Space,
    place: Deployment,
    zygote: Zygote,
    devices: ClusterPartition,
    hardware: Hardware,
    say: Callable[[str], None],
    *,
    starting: bool,
) -> tuple[WorkloadProfile, ArmPlacements, Mapping[str, Infeasible]]:
    """The workload profile, the placement of each arm, and what fits nowhere: arms or the untuned
    model.

    If placements are predicted from memory, the prediction is corrected by three measured steps of
    each arm. They run on a device of the cluster or, where none is started (see
    ``inspect_cluster``), of this machine.

    Raises:
        BadInput: the model, the data and the recipes do not go together, or no arm fits.
    """
    if not devices.predicting:
        cuda = devices.gpus > 0
        told = uniform_placements(
            settings, space, place, trials_per_host=devices.trials_per_host, cuda=cuda
        )
        return zygote.profile(), told, {}
    from study.execution.calibration import CalibrationActor, Calibrator
    from study.planning import memory_prediction
    from study.planning.placement import DeviceMemory as Memory
    from trainables.model_lookup import skeleton_of

    config = replace(settings.workload, precision=hardware.precision)
    probes = Calibrator(config, devices) if starting or place.address else None
    profile, budget = zygote.profile(), settings.budget(space)
    recipes, batch = profile.recipes(space), profile.batch(budget)
    probed = (
        probes.take(recipes, batch, say)
        if probes
        else CalibrationActor(config).probe(recipes, batch)
    )
    profile = profile.with_probes(probed, budget)
    found, nowhere = memory_prediction.placements(
        space,
        skeleton_of(settings.model, settings.image_size, hardware.precision),
        batch,
        precision=hardware.precision,
        beams=profile.beams,
        devices=Memory(
            count=devices.hosts,
            gib=place.device_gib or hardware.device_gib,
            host_gib=devices.host_gib,
        ),
        sharing=devices.trials_per_host,
        probed=profile.probed,
    )
    if not found.by_arm:
        arm, first = next(iter(nowhere.items()))
        raise BadInput(f"no arm fits into the devices' memory; {arm}: {first.reason}")
    return profile, found, nowhere


def start(place: Deployment, dispatcher: Dispatcher) -> None:
    """Start hosts and gangs, unless the study has its results already. For an engine that divides
    the weights among devices (ZeRO-3), the base model is loaded into host memory."""
    for lane, several in ((dispatcher.hosts, False), (dispatcher.gangs, True)):
        kinds = [p.deepspeed for p in dispatcher.placements.every if (p.devices > 1) == several]
        if any(partitions_weights(kind) for kind in kinds):
            workload = replace(lane.config.workload, resident=False)
            lane.config = replace(lane.config, workload=workload)
    if not (place.storage / place.name / "results.json").exists():
        dispatcher.start()
