"""Sets up the process group of a gang's workers by Ray Train, and gives up after a minute.

The module needs torch, so it is imported only where a gang is started.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayTaskError
from ray.train.torch import TorchConfig, get_device
from ray.train.torch.config import _TorchBackend

from study.worker import launchers
from study.worker.gang_worker import RendezvousFailed
from study.worker.resident_trials import one_line

RENDEZVOUS_SECONDS = 60
"""Longest time in seconds until all workers have found each other."""


@dataclass(kw_only=True)
class GroupConfig(TorchConfig):
    """Ray Train's configuration of a process group, for workers without a launcher's variables."""

    timeout_s: int = RENDEZVOUS_SECONDS
    collective_s: float
    """Longest time in seconds that a later collective may take."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The class that sets the group up."""
        return _Backend


class _Backend(_TorchBackend):
    """Sets up a process group, and ends its workers if that fails."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Set up the group; Ray Train's controller calls this in its process.

        Raises:
            RendezvousFailed: the workers found no way to each other. They are ended, so that their
                devices are free: Ray Train would keep workers that have started.
        """
        try:
            worker_group.execute(launchers.forget)
            super().on_start(worker_group, backend_config)
            worker_group.execute(_use_once, backend_config.collective_s)
        except Exception as error:  # torch and Ray raise several types; no worker may stay
            worker_group.get_worker_group_state().shutdown()
            cause = error.cause if isinstance(error, RayTaskError) else error
            raise RendezvousFailed(one_line(cause)) from None


def _use_once(collective_seconds: float) -> None:
    """Run one collective, because NCCL connects at first use; then allow later ones their full
    time."""
    import torch

    from trainables.devices import accelerator
    from trainables.engine import ranks

    device = get_device()
    accelerator.choose(device)
    float(ranks.summed(torch.ones((), device=device)))
    ranks.set_timeout(collective_seconds)
