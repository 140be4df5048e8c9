"""The study's gangs, seen from the driver: started, given trials, ended.

The driver runs each gang's ``TorchTrainer``, in a thread that ends when the gang does. So what
holds its devices, a placement group, belongs to the driver and to a controller that it watches:
when workers leave, are killed or fail, the controller gives the devices back before ``fit``
returns; when the driver dies, all of it dies.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorClass
from ray.exceptions import RayActorError

from study.cluster import wait_for
from study.devices import Devices
from study.gang import Door, work
from study.guest import HostConfig
from study.guests import one_line, outcome_of
from study.hosts import IDLE_SECONDS

AGAIN_SECONDS = 1.0
"""Between two attempts to start workers."""
BACK_SECONDS = 20.0
"""Within which a door that died is there again."""


class Gang:
    """One of them: its door, and the thread in which its workers are looked after."""

    def __init__(self, name: str, size: int, config: HostConfig, devices: Devices) -> None:
        self.name, self.size, self.config, self.devices = name, size, config, devices
        self.trial: str | None = None
        """The one that it has."""
        self.idle_since = time.monotonic()
        self.ending = False
        door: ActorClass[Any] = ray.remote(Door)
        self.door: Any = door.options(name=name, num_cpus=0, max_restarts=-1).remote()
        self._thread = threading.Thread(target=self._look_after, name=name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let the workers leave, and wait until their devices are free."""
        self.ending = True
        self.door.end.remote()
        self._thread.join()
        ray.kill(self.door)

    def _look_after(self) -> None:
        from ray.train import TrainingFailedError

        while True:
            try:
                self._run()
                return  # they were told to leave
            except TrainingFailedError as error:
                if self.ending:
                    return
                self._say(error)
            time.sleep(AGAIN_SECONDS)

    def _run(self) -> None:
        """Start workers and wait until the last has left."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        # Their working folder is no business of ours: paths are absolute, and nothing is written.
        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
        with tempfile.TemporaryDirectory(prefix="train-", ignore_cleanup_errors=True) as scratch:
            TorchTrainer(
                work,
                train_loop_config={"door": self.name, "config": self.config},
                torch_config=TorchConfig(backend="nccl" if self.devices.gpus else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=self.size,
                    use_gpu=self.devices.gpus > 0,
                    resources_per_worker={
                        kind: count
                        for kind, count in (("CPU", self.devices.cpus), ("GPU", self.devices.gpus))
                        if count
                    },
                    placement_strategy="PACK",
                ),
                # Trials keep their own checkpoints, and it is the study that takes them up again.
                run_config=RunConfig(
                    name=self.name,
                    storage_path=scratch,
                    failure_config=FailureConfig(max_failures=0),
                ),
            ).fit()

    def _say(self, error: Any) -> None:
        """Why the workers ended: a trial's fault is its outcome; that of a machine is known to
        whoever waits at the door by the door's being gone."""
        failures = getattr(error, "worker_failures", {}).values()
        # Ray Train wraps what a rank raised, or not; what it says itself is of a worker that died.
        causes = [getattr(failure, "_base_exc", failure) for failure in failures]
        raised = [cause for cause in causes if not type(cause).__module__.startswith("ray.")]
        # The others only saw that one was gone.
        own = [cause for cause in raised if "onnection" not in str(cause)]
        if len(raised) < len(causes) or not own:
            ray.kill(self.door, no_restart=False)
        else:
            ray.get(self.door.fell.remote(outcome_of(own[0]), one_line(own[0])))


class Gangs:
    """Starts gangs, and knows which trial is on which."""

    def __init__(self, config: HostConfig, devices: Devices) -> None:
        self.config, self.devices = config, devices
        self.there: dict[str, Gang] = {}
        """By name."""
        self._started = 0

    @property
    def taken(self) -> int:
        """Devices that they hold."""
        return sum(gang.size for gang in self.there.values())

    def idle(self, size: int | None = None) -> list[Gang]:
        """Those that have no trial; of one size, if it is given."""
        free = (gang for gang in self.there.values() if gang.trial is None)
        return [gang for gang in free if size in (None, gang.size)]

    def start(self, size: int) -> Gang:
        """A new one; its devices must be free, or about to be."""
        name = f"gang-{self._started}"
        self._started += 1
        gang = self.there[name] = Gang(name, size, self.config, self.devices)
        return gang

    def place(self, trial_id: str, size: int) -> str:
        """Give a trial to a gang that is idle, or to a new one; its name."""
        gang = next(iter(self.idle(size)), None) or self.start(size)
        gang.trial = trial_id
        return gang.name

    def of(self, trial_id: str) -> Gang | None:
        """The gang that has a trial."""
        return next((gang for gang in self.there.values() if gang.trial == trial_id), None)

    def lost(self, gang: Gang) -> str:
        """Its workers, or its door, have died: wait for the door to be back; its name. Trials that
        are brought there wait for new workers."""
        with suppress(RayActorError):  # then whoever is brought there is told so
            wait_for(gang.door.back, seconds=BACK_SECONDS)
        return gang.name

    def left(self, gang: Gang) -> None:
        """Its trial has ended, or was stopped."""
        if gang.trial is not None:
            gang.door.leave.remote(gang.trial)
        gang.trial, gang.idle_since = None, time.monotonic()

    def end(self, gang: Gang) -> None:
        """End one that is idle."""
        del self.there[gang.name]
        gang.end()

    def give_back(self, *, all_idle: bool) -> None:
        """End those without trials: all of them, or those that had none for a while."""
        now = time.monotonic()
        for gang in self.idle():
            if all_idle or (self.devices.shared and now - gang.idle_since > IDLE_SECONDS):
                self.end(gang)
