"""A trial as Ray Tune sees it: a client that holds no device and computes nothing.

The trial trains on a host (``study.worker.host``) or on a gang. One step of the Tune trainable is
the way to the trial's next rung.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from study.execution.cluster import wait_for
from study.planning.placement import Placement


class TrialClient(tune.Trainable):
    """Runs one trial after another on behalf of Ray Tune."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; nothing of the previous one is kept."""
        self.trial: dict[str, Any] = new_config["trial"]
        self.heard: int = new_config["heard"]
        """Examples seen at the last report; see ``study.worker.resident_trial.ResidentTrial``."""
        self.suspect: bool = new_config["suspect"]
        self.placement: Placement = new_config["placement"]
        self.host = ray.get_actor(new_config["host"])
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the trial's next report.

        Raises:
            RayActorError: the host died; Tune resumes the trial, on a host that is alive.
        """
        if self.suspect:  # if no other host was alive, it is the one that died
            wait_for(self.host.alive)
        report: Any = self.host.advance.remote(
            self.trial, placement=self.placement, heard=self.heard, suspect=self.suspect
        )
        result: dict[str, Any] = ray.get(report)
        self.suspect = False
        self.heard = result.get("rung", {}).get("examples_seen", self.heard)
        return result
