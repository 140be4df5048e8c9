"""Where a study runs: which devices its hosts and gangs have, and which of them each arm gets."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.declare import Space
from study.settings import Settings
from study.storage import Shelf
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.lanes import Lanes
    from study.placement import Infeasible
    from study.placements import Placements
    from study.survey import Survey
    from study.template import Template

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


def open_lanes(settings: Settings, space: Space, place: Place, template: Template) -> Lanes:
    """Hosts and gangs that begin to load at once: by the time that the plan is shown they are
    ready."""
    from study.actor import HostActor
    from study.cluster import connect, devices
    from study.gangs import Gangs
    from study.guests import HostConfig
    from study.hosts import Hosts
    from study.lanes import Lanes

    connect(place.address)
    predicting = place.devices_per_trial is None and settings.deepspeed == "auto"
    divided = devices(
        place.concurrency,
        shared=place.address is not None,
        per_trial=place.devices_per_trial or 1,
        predicting=predicting and (place.device_gib is not None or template.arithmetic.cuda),
    )
    predicting = divided.predicting
    config = HostConfig(
        # In the precision that this machine finds right, on whatever machine a trial runs.
        workload=replace(settings.workload, precision=template.arithmetic.precision),
        others=settings.others,
        shelf=place.shelf,
        precision=template.arithmetic.precision,
        label_smoothing=settings.label_smoothing,
        questions_per_image=settings.questions_per_image,
        places=divided.places,
        template=None if divided.gpus else template.socket,
    )
    cuda = divided.gpus > 0
    lanes = Lanes(
        Hosts(HostActor, config, divided),
        Gangs(replace(config, places=1), divided),
        placements(settings, space, place, places=divided.places, cuda=cuda),
    )
    if not predicting:
        _start(place, lanes)
    return lanes


def fit(
    settings: Settings,
    space: Space,
    place: Place,
    lanes: Lanes,
    survey: Survey,
    precision: str,
) -> dict[str, Infeasible]:
    """Put each arm where it fits, by predicted memory, if that was left open; those that fit
    nowhere, which are not run.

    Raises:
        BadInput: none of them fits.
    """
    if not lanes.hosts.devices.predicting:
        return {}
    from study import predicted
    from study.cluster import device_gib
    from study.placement import Devices
    from trainables.footprint import BatchShape
    from trainables.workload import skeleton_of

    size = settings.budget(space).batch_size
    lanes.placements, nowhere = predicted.placements(
        space,
        skeleton_of(settings.model, settings.image_size, precision),
        BatchShape(
            questions=size,
            images=size,
            question_tokens=survey.question_tokens,
            answer_tokens=survey.answer_tokens,
        ),
        precision=precision,
        devices=Devices(count=lanes.devices, gib=place.device_gib or device_gib()),
        sharing=lanes.hosts.devices.places,
    )
    if not lanes.placements.by_arm:
        arm, found = next(iter(nowhere.items()))
        raise BadInput(f"no arm fits into the devices' memory; {arm}: {found.reason}")
    _start(place, lanes)
    return nowhere


def _start(place: Place, lanes: Lanes) -> None:
    """Start hosts and gangs, unless the study is over, or nearly."""
    if not (place.storage / place.name / "results.json").exists():
        lanes.start()
