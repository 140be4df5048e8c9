"""Deployment of a study: its storage, its cluster, its MLflow store and the devices of a trial."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass

from study.config.definition import StudyDefinition
from study.config.settings import WHERE
from study.storage.object_store import check_storage_address
from study.storage.study_folder import STORAGE, StudyFolder
from trainables.errors import BadInput
from trainables.options import option

CUDA_GIB = 1
"""GiB of GPU memory that each process takes for CUDA itself: context, libraries, workspaces."""
MOST_SHARING = 8
"""Maximum number of trials that share a device: more gain nothing."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Option of the commands that find studies."""

    storage: str = option(
        STORAGE,
        group=WHERE,
        metavar="DIR|s3://BUCKET/NAME",
        help="a folder that all nodes share, or an object store",
    )

    def __post_init__(self) -> None:
        check_storage_address(self.storage)


@dataclass(frozen=True, kw_only=True)
class Places(Storage):
    """Options of the commands that find studies and what MLflow has of them."""

    tracking_uri: str | None = option(
        None,
        group=WHERE,
        metavar="URI",
        help="an MLflow store",
        default="MLFLOW_TRACKING_URI, or in --storage",
    )


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Devices on which a study runs, and where it writes. No number depends on it."""

    study_folder: StudyFolder
    concurrency: int | None = option(
        None,
        group=WHERE,
        help=f"trials at a time, at most {MOST_SHARING} on a device or processor, which then share "
        "its passes",
        default="one on each; on CUDA as many as fit",
    )
    devices_per_trial: int | None = option(
        None,
        group=WHERE,
        help="train each trial on N devices or processors together, by Ray Train",
        default="as memory asks",
    )
    device_gib: float | None = option(
        None,
        group=WHERE,
        help="memory of each device or processor, to place trials by",
        default="as CUDA says; else ignored",
    )
    address: str | None = option(
        None,
        group=WHERE,
        metavar="ADDRESS",
        help="a Ray cluster to join, or 'auto'",
        default="start one here",
    )
    tracking_uri: str
    """Address of the MLflow store; empty where a trial runs by itself."""

    def __post_init__(self) -> None:
        """Check what can be checked without a cluster.

        Raises:
            BadInput: no trial may run at a time, or a device has no memory for one.
        """
        if self.concurrency is not None and self.concurrency < 1:
            raise BadInput(f"--concurrency must be at least 1, got {self.concurrency}")
        if self.device_gib is not None and not CUDA_GIB < self.device_gib < math.inf:
            raise BadInput(
                f"--device-gib must be more than {CUDA_GIB}, which CUDA itself takes, got "
                f"{self.device_gib:g}"
            )

    def leaves_placement_open(self, definition: StudyDefinition) -> bool:
        """Whether each arm may run wherever its memory fits: the user chose neither the devices of
        a trial nor an engine."""
        return self.devices_per_trial is None and definition.engine is None


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
