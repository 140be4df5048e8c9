"""A trial as Ray Tune sees it: a client that holds no device and computes nothing.

The trial trains on a host (``study.worker.host``) or on a gang. One step of the Tune trainable is
the way to the trial's next rung.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from study.execution.cluster import wait_for
from study.worker.orders import AdvanceTrial, TrialReport


class TrialClient(tune.Trainable):
    """Runs one trial after another on behalf of Ray Tune."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; nothing of the previous one is kept."""
        self.order: AdvanceTrial = new_config["order"]
        self.host = ray.get_actor(new_config["host"])
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the trial's next report: ``report``, and ``done`` for Tune.

        Raises:
            RayActorError: the host died; Tune resumes the trial, on a host that is alive.
        """
        if self.order.suspect:  # if no other host was alive, it is the one that died
            wait_for(self.host.alive)
        answer: Any = self.host.advance.remote(self.order)
        report: TrialReport = ray.get(answer)
        self.order = self.order.after(report)
        return {"report": report, "done": report.done}
