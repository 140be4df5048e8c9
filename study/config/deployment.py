"""Where a study runs: its storage, its cluster, its MLflow store and the devices of a trial."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from study.config.settings import Settings
from study.storage.study_folder import StudyFolder
from trainables.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Where a study runs and where it writes. Nothing here changes a number."""

    storage: Path
    store: str | None
    """URL of the object store that ``storage`` is this machine's copy of; None if there is none."""
    name: str
    tracking_uri: str
    address: str | None
    """Address of a Ray cluster; None: this machine."""
    concurrency: int | None
    """Trials at a time; None: one per device, or one per processor where there are no devices."""
    devices_per_trial: int | None = None
    """Devices of each trial; None: as many as a trial needs."""
    device_gib: float | None = None
    """Memory of each device; None: as CUDA says, or not considered where there is no CUDA."""

    def open(self, settings: Settings) -> bool:
        """Whether each arm may run wherever its memory fits: the user chose neither the devices of
        a trial nor an engine."""
        return self.devices_per_trial is None and settings.deepspeed == "auto"

    @property
    def study_folder(self) -> StudyFolder:
        """The study's files, as workers see them."""
        url = f"{self.store.rstrip('/')}/{self.name}" if self.store else None
        return StudyFolder(shared=(self.storage / self.name).resolve(), url=url)


def check_address(address: str | None) -> None:
    """Check that something answers at a cluster's address; Ray itself would try for minutes.

    Raises:
        BadInput: nothing answers there within 5 seconds, or it is no address.
    """
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
