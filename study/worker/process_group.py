"""The process group of a gang's workers, which Ray Train sets up: made within a minute or not.

Imported where a gang is started: it needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayTaskError
from ray.train.torch import TorchConfig, get_device
from ray.train.torch.config import _TorchBackend

from study.worker import launchers
from study.worker.gang_worker import NotMet
from study.worker.resident_trials import one_line

MEET_SECONDS = 60
"""Within which all workers find each other."""
PATIENCE_SECONDS = 1800
"""Within which each collective after that ends; Ray Train's own."""


@dataclass
class GroupConfig(TorchConfig):
    """Ray Train's, for workers that were told nothing else than it tells them."""

    timeout_s: int = MEET_SECONDS

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Sets the group up."""
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Called in the process of Ray Train's controller.

        Raises:
            NotMet: there is no group. The workers are ended and their devices free: Ray Train, to
                which they had started, would keep them.
        """
        try:
            worker_group.execute(launchers.forget)
            super().on_start(worker_group, backend_config)
            worker_group.execute(_meet)
        except Exception as error:
            worker_group.get_worker_group_state().shutdown()
            cause = error.cause if isinstance(error, RayTaskError) else error
            raise NotMet(one_line(cause)) from None


def _meet() -> None:
    """Add a number up, for NCCL connects when it is first used."""
    import torch

    from trainables.engine import ranks

    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    float(ranks.summed(torch.ones((), device=device)))
    ranks.set_timeout(PATIENCE_SECONDS)


LINK = (
    "set {}_SOCKET_IFNAME to the network between the nodes (ip addr), and see that no firewall is "
    "between them"
)
"""What to do where devices do not find each other by NCCL, or GLOO."""
