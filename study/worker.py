"""A trial as Ray Tune sees it. It holds no device and computes nothing: a host does; see there.

One step of the trainable is the way to the trial's next rung.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from study.cluster import wait_for
from study.placement import Placement


class TrialClient(tune.Trainable):
    """Speaks for one trial after another."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; nothing of the one before is kept."""
        self.trial: dict[str, Any] = new_config["trial"]
        self.heard: int = new_config["heard"]
        """Examples seen at the last report; see ``study.guest.Guest``."""
        self.suspect: bool = new_config["suspect"]
        self.placement: Placement = new_config["placement"]
        self.host = ray.get_actor(new_config["host"])
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next report.

        Raises:
            RayActorError: the host died; Tune takes the trial up again, on a host that lives.
        """
        if self.suspect:  # if no other lived, it is the host that died
            wait_for(self.host.alive)
        report: Any = self.host.advance.remote(
            self.trial, placement=self.placement, heard=self.heard, suspect=self.suspect
        )
        result: dict[str, Any] = ray.get(report)
        self.suspect = False
        self.heard = result.get("rung", {}).get("examples_seen", self.heard)
        return result
