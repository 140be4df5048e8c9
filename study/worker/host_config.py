"""The configuration of a host: what all trials of a study have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.storage.study_folder import StudyFolder

if TYPE_CHECKING:
    from trainables.training.regime import Regime
    from trainables.workload import WorkloadConfig


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """All that a host needs to run any trial of a study."""

    workload: WorkloadConfig
    """Model and data of the study, and the precision in which trials compute."""
    ood_workloads: Mapping[str, WorkloadConfig]
    """Name of a dataset of ``--ood`` -> the model with that dataset, on which confirmed trials are
    scored too."""
    study_folder: StudyFolder
    """The study's files."""
    regime: Regime
    trials_per_host: int
    """Largest number of trials on the host at a time."""
    saves: bool = True
    """Whether a trial is saved at each rung, so that it goes on if its host dies."""
    threads: int = 1
    """Largest number of threads that compute: those of the host's own processors and no more."""
    zygote: Path | None = None
    """Socket of the machine's zygote (``study.worker.zygote``); None: each host loads model and
    data itself."""
