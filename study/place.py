"""Where a study runs: which devices its hosts and gangs have, and which of them each arm gets."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.declare import Space
from study.devices import Devices, divide, no_worker
from study.settings import Settings
from study.storage import Shelf
from trainables.errors import BadInput
from trainables.zero_settings import divides

if TYPE_CHECKING:
    from study.arithmetic import Arithmetic
    from study.lanes import Lanes
    from study.placement import Infeasible
    from study.placements import Placements
    from study.survey import Survey
    from study.template import Template
    from trainables.data.dataset import Dataset

GANG_ENGINE = "2"
"""Of a trial on several devices: the lowest ZeRO stage that saves memory on each of them."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a study runs and where it writes: nothing here changes a number."""

    storage: Path
    store: str | None
    """URL of the object store that ``storage`` is this machine's copy of."""
    name: str
    tracking_uri: str
    address: str | None
    """Of a Ray cluster; None: this machine."""
    concurrency: int | None
    """Trials at a time; None: one a device, or one a processor where there are none."""
    devices_per_trial: int | None = None
    """None: as many as a trial needs."""
    device_gib: float | None = None
    """Memory of each; None: as CUDA says, or not looked at where there is none."""

    def open(self, settings: Settings) -> bool:
        """Whether each arm may go where its memory fits: nothing was told of devices or engine."""
        return self.devices_per_trial is None and settings.deepspeed == "auto"

    @property
    def shelf(self) -> Shelf:
        """The study's files, as workers see them."""
        url = f"{self.store.rstrip('/')}/{self.name}" if self.store else None
        return Shelf(shared=(self.storage / self.name).resolve(), url=url)


def reach(address: str | None) -> None:
    """See whether something answers at a cluster's address; Ray itself would try for minutes."""
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise BadInput(
            f"no Ray cluster at --address {address!r} ({error}); give HOST:PORT, 'auto', "
            "or leave it away to start one here"
        ) from None


def placements(
    settings: Settings, space: Space, place: Place, *, places: int, cuda: bool
) -> Placements:
    """Where the trials of each arm run.

    Raises:
        BadInput: the devices of a trial cannot share a batch evenly, or have no memory.
    """
    from study.placement import as_told
    from study.placements import Placements

    if place.device_gib is not None and not 0 < place.device_gib < math.inf:
        raise BadInput(f"--device-gib must be more than 0, not {place.device_gib:g}")
    devices = 1 if place.devices_per_trial is None else place.devices_per_trial
    kind = settings.engine(cuda=cuda, sharing=places > 1)
    if devices > 1 and settings.deepspeed == "auto":
        kind = GANG_ENGINE
    told = as_told(
        devices=devices,
        deepspeed=kind,
        batch_size=settings.budget(space).batch_size,
        sharing=places,
        reason="as told" if place.devices_per_trial else "memory is not looked at",
    )
    return Placements(dict.fromkeys(space.arms, told), told)


def look(
    settings: Settings, place: Place, template: Template, dataset: Dataset, *, starting: bool
) -> tuple[Devices, Arithmetic]:
    """What there is to run trials on, how it is divided and how it computes; the template goes on
    with the data meanwhile. ``starting``: a cluster on this machine, if no other is named.

    Raises:
        BadInput: there is no such cluster, or none of its nodes can run trials, or there are not as
            many devices as were asked for.
    """
    from study import cluster, faults

    if place.address is None:
        template.take(dataset)
        if starting:
            faults.check(Path(os.environ.get("RAY_TMPDIR", "/tmp")))  # where Ray has its session
            cluster.connect(None)
        arithmetic = template.arithmetic
        nodes = cluster.nodes() if starting else [_this_machine(arithmetic)]
    else:
        cluster.connect(place.address)
        nodes = cluster.nodes()
        if place.concurrency is None and not any(n.get("CPU") or n.get("GPU") for n in nodes):
            raise no_worker()
        arithmetic = cluster.arithmetic(settings.precision)
        template.take(dataset, arithmetic)
    devices = divide(
        nodes,
        place.concurrency,
        shared=place.address is not None,
        per_trial=place.devices_per_trial or 1,
        alone=settings.costs_decide,
        predicting=place.open(settings) and (place.device_gib is not None or arithmetic.cuda),
    )
    return devices, arithmetic


def _this_machine(arithmetic: Arithmetic) -> Mapping[str, float]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"CPU": os.cpu_count() or 1, "GPU": arithmetic.devices, "memory": memory}


def open_lanes(
    settings: Settings,
    space: Space,
    place: Place,
    devices: Devices,
    arithmetic: Arithmetic,
    template: Path,
    say: Callable[[str], None],
) -> Lanes:
    """Hosts and gangs that begin to load at once: by the time that the plan is shown they are
    ready. ``template``: where hosts of this machine ask to be forked. ``say``: where a line goes
    that the user is to see, of gangs that do not start."""
    from study.actor import HostActor
    from study.gangs import Gangs
    from study.guest import HostConfig
    from study.hosts import Hosts
    from study.lanes import Lanes

    config = HostConfig(
        workload=replace(settings.workload, precision=arithmetic.precision),
        others=settings.others,
        shelf=place.shelf,
        precision=arithmetic.precision,
        regime=settings.regime,
        places=devices.places,
        threads=devices.cpus,
        template=None if devices.gpus else template,
    )
    cuda = devices.gpus > 0
    lanes = Lanes(
        Hosts(HostActor, config, devices),
        Gangs(replace(config, places=1), devices, say),
        placements(settings, space, place, places=devices.places, cuda=cuda),
    )
    if not devices.predicting:
        start(place, lanes)
    return lanes


def placed(
    settings: Settings,
    space: Space,
    place: Place,
    template: Template,
    devices: Devices,
    arithmetic: Arithmetic,
    say: Callable[[str], None],
    *,
    starting: bool,
) -> tuple[Survey, Placements, Mapping[str, Infeasible]]:
    """What the template says of model and data, where each arm runs, and what runs nowhere. If
    memory is looked at, by what is predicted, corrected by three steps of each arm on a device: of
    the cluster, or, where none is started (see ``look``), of this machine.

    Raises:
        BadInput: what was given does not go together, or no arm fits.
    """
    if not devices.predicting:
        cuda = devices.gpus > 0
        told = placements(settings, space, place, places=devices.places, cuda=cuda)
        return template.survey(), told, {}
    from study import predicted
    from study.placement import Devices as Memory
    from study.prober import Prober, Probes
    from trainables.workload import skeleton_of

    config = replace(settings.workload, precision=arithmetic.precision)
    probes = Probes(config, devices) if starting or place.address else None
    survey, budget = template.survey(), settings.budget(space)
    recipes, batch = survey.recipes(space), survey.batch(budget)
    probed = probes.take(recipes, batch, say) if probes else Prober(config).probe(recipes, batch)
    survey = survey.with_probes(probed, budget)
    found, nowhere = predicted.placements(
        space,
        skeleton_of(settings.model, settings.image_size, arithmetic.precision),
        batch,
        precision=arithmetic.precision,
        beams=survey.beams,
        devices=Memory(
            count=devices.hosts,
            gib=place.device_gib or arithmetic.device_gib,
            host_gib=devices.host_gib,
        ),
        sharing=devices.places,
        probed=survey.probed,
    )
    if not found.by_arm:
        arm, first = next(iter(nowhere.items()))
        raise BadInput(f"no arm fits into the devices' memory; {arm}: {first.reason}")
    return survey, found, nowhere


def start(place: Place, lanes: Lanes) -> None:
    """Start hosts and gangs, unless the study is over, or nearly. Where weights are divided, the
    base waits for it in host memory."""
    for lane, several in ((lanes.hosts, False), (lanes.gangs, True)):
        kinds = [p.deepspeed for p in lanes.placements.every if (p.devices > 1) == several]
        if any(divides(kind) for kind in kinds):
            workload = replace(lane.config.workload, resident=False)
            lane.config = replace(lane.config, workload=workload)
    if not (place.storage / place.name / "results.json").exists():
        lanes.start()
