"""Starts gangs, groups of devices that train one trial together; assigns trials to them; ends them.

The driver runs the ``TorchTrainer`` of each gang in a thread that ends when the gang does. A gang's
devices are held by a placement group, which belongs to the driver and to a Ray Train controller
that the driver watches. When workers leave, are killed or fail, the controller releases the devices
before ``fit`` returns; when the driver dies, the gang dies with it.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorClass
from ray.exceptions import GetTimeoutError, RayActorError

from study.execution.cluster import wait_for
from study.planning.cluster_partition import IDLE_SECONDS, ClusterPartition
from study.storage import scratch
from study.storage.faults import describe_fault
from study.trials.text import wait_text
from study.worker.gang_worker import (
    COLLECTIVE_SECONDS,
    LINK,
    GangInbox,
    RendezvousFailed,
    run_worker,
)
from study.worker.host_config import HostConfig
from study.worker.orders import ForgetTrial, TrialReport
from study.worker.resident_trials import one_line, outcome_of
from trainables.devices.kinds import backend, plural
from trainables.errors import BadInput

RESTART_SECONDS = 1.0
"""Seconds between two attempts to start workers."""
ONCE_MORE_SECONDS = 10.0
"""Seconds to the next attempt after one that brought no workers: Ray takes as long to notice that a
node is lost."""
ATTEMPTS = 2
"""Largest number of attempts in a row that bring no workers."""
TIMED_OUT = re.compile(
    r"Timed out waiting \d+ms for|Application timeout caused pair closure|wait timeout after \d+ms"
)
"""Words in the errors of gloo and of PyTorch's store when a worker has waited for another for
``COLLECTIVE_SECONDS``. NCCL ends the process that waits instead, which is a lost machine here."""
BACK_SECONDS = 20.0
"""Longest time in seconds until an inbox that died is back."""


class GangHandle:
    """The driver's handle of one gang: its inbox actor, and the thread that runs its workers."""

    def __init__(
        self,
        name: str,
        size: int,
        config: HostConfig,
        partition: ClusterPartition,
        say: Callable[[str], None],
    ) -> None:
        self.name, self.size, self.config, self.partition = name, size, config, partition
        self.say = say
        self.given_up: BadInput | None = None
        """Error of a gang that has no workers and will have none; None while there is hope."""
        self.trial: str | None = None
        """Id of the trial that the gang trains; None if it is idle."""
        self.idle_since = time.monotonic()
        self.hung: set[str] = set()
        """Ids of trials of which a worker hung; ``HungProcesses`` takes them out."""
        self._ending = threading.Event()
        inbox: ActorClass[Any] = ray.remote(GangInbox)
        self.inbox: Any = inbox.options(name=name, num_cpus=0, max_restarts=-1).remote()
        self._thread = threading.Thread(target=self._look_after, name=name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let the workers leave, and wait until their devices are free."""
        self._ending.set()
        self.inbox.end.remote()
        self._thread.join()
        ray.kill(self.inbox)

    def drop(self) -> None:
        """Begin no workers again: the study leaves the cluster with all that runs."""
        self._ending.set()

    def _look_after(self) -> None:
        failed, said_that_it_waits = 0, False
        while True:
            try:
                self._run()
                return  # they were told to leave
            except Exception as error:  # of Ray Train, or of the process that it has for this
                if self._ending.is_set():
                    return
                if self._had_workers():
                    failed, pause = 0, RESTART_SECONDS
                    self._answer_clients(error)
                elif _found_no_room(error):
                    pause = RESTART_SECONDS
                    if not said_that_it_waits:
                        self.say(f"{self.name} waits for {self._devices}: the cluster has no room")
                    said_that_it_waits = True
                else:
                    failed, pause = failed + 1, ONCE_MORE_SECONDS
                    why = self._why(error)
                    if failed == ATTEMPTS:
                        self.given_up = BadInput(
                            f"no gang of {self._devices} could be started: {why}; "
                            "nothing is lost: --resume goes on"
                        )
                        return
                    self.say(f"{self.name} could not be started and is started again: {why}")
            if self._ending.wait(pause):
                return

    @property
    def _devices(self) -> str:
        return f"{self.size} {plural(self.partition.kind)}"

    def _had_workers(self) -> bool:
        """Whether the last attempt brought workers that waited for trials."""
        try:
            opened: bool = ray.get(self.inbox.opened.remote(), timeout=BACK_SECONDS)
        except (RayActorError, GetTimeoutError):
            return True  # then whoever waits at the inbox is told that it is gone
        return opened

    def _run(self) -> None:
        """Start workers and wait until the last has left."""
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.train.v2.api.config import FailureConfig  # what ray.train's is, but for its types

        from study.worker.process_group import GroupConfig

        # Workers keep their working folder: paths are absolute, and nothing is written there.
        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
        with scratch.folder("train") as folder:
            TorchTrainer(
                run_worker,
                train_loop_config={"inbox": self.name, "config": self.config},
                torch_config=GroupConfig(
                    backend=backend(self.partition.kind),
                    collective_s=COLLECTIVE_SECONDS,
                ),
                scaling_config=ScalingConfig(
                    num_workers=self.size,
                    use_gpu=self.partition.gpus > 0,
                    resources_per_worker={
                        kind: count
                        for kind, count in (
                            ("CPU", self.partition.cpus),
                            ("GPU", self.partition.gpus),
                        )
                        if count
                    },
                    placement_strategy="PACK",
                ),
                # No retries by Ray Train: the study itself resumes trials from their checkpoints.
                run_config=RunConfig(
                    name=self.name,
                    storage_path=str(folder),
                    # Nothing is begun anew where nobody outside would know of it.
                    failure_config=FailureConfig(
                        max_failures=0, controller_failure_limit=0, max_preemption_failures=0
                    ),
                ),
            ).fit()

    def _why(self, error: Exception) -> str:
        """One line on an attempt that brought no workers."""
        causes = _of_workers(error)
        (cause, *_) = _raised_by_workers(causes) or causes or [_of_controller(error)]
        if isinstance(cause, RendezvousFailed):
            return f"{cause}; {LINK.format(backend(self.partition.kind).upper())}"
        return one_line(getattr(cause, "health_check_failure", cause))

    def _answer_clients(self, error: Exception) -> None:
        """Tell the client that waits at the inbox why the workers ended. A trial's fault becomes
        its outcome. If a machine was lost, or a worker hung, the inbox is killed, which tells the
        client."""
        causes = _of_workers(error)
        folder = self.config.study_folder.local_storage
        faults = filter(None, (describe_fault(cause, folder) for cause in (*causes, error)))
        raised, why = _raised_by_workers(causes), TrialReport(fault=next(faults, ""))
        if not why.fault:
            if any(map(_of_ray, causes)) or not raised:
                if hangs(error):
                    self._note_hang()
                ray.kill(self.inbox, no_restart=False)
                return
            why = TrialReport(outcome=outcome_of(raised[0]), error=one_line(raised[0]))
        with suppress(RayActorError):  # then it is gone already
            ray.get(self.inbox.answer_all.remote(why))

    def _note_hang(self) -> None:
        """Tell the user, and ``HungProcesses``, that a worker hangs."""
        if (trial := self.trial) is not None:
            self.hung.add(trial)
        self.say(
            f"a worker of {self.name} hangs: the others have waited for it for "
            f"{wait_text(COLLECTIVE_SECONDS)}. All are ended, and new ones go on."
        )


def hangs(error: Exception) -> bool:
    """Whether an error of Ray Train says that a worker hangs: others have waited for it in vain,
    and none has raised an error of its own."""
    causes = _of_workers(error)
    return any(map(_timed_out, causes)) and not _raised_by_workers(causes)


def _of_workers(error: Exception) -> list[BaseException]:
    """Errors of the workers that an error of Ray Train reports."""
    failures = getattr(error, "worker_failures", {}).values()
    return [getattr(failure, "_base_exc", failure) for failure in failures]  # it wraps it, or not


def _of_ray(cause: BaseException) -> bool:
    """Whether an error is Ray's own, which means that a worker died."""
    return type(cause).__module__.startswith("ray.")


def _timed_out(cause: BaseException) -> bool:
    """Whether a worker has waited in vain for another."""
    return TIMED_OUT.search(str(cause)) is not None


def _raised_by_workers(causes: list[BaseException]) -> list[BaseException]:
    """Errors that workers raised themselves, without those of a lost connection to another, or of
    another that hangs."""
    return [
        cause
        for cause in causes
        if not (_of_ray(cause) or _timed_out(cause) or "onnection" in str(cause))
    ]


def _of_controller(error: Exception) -> Exception:
    """Error of Ray Train's controller, if the controller failed; else the error itself."""
    failure: Exception = getattr(error, "controller_failure", error)
    return failure


def _found_no_room(error: Exception) -> bool:
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(_of_controller(error), WorkerGroupStartupTimeoutError)


class GangPool:
    """Starts gangs, and knows which trial is on which gang."""

    def __init__(
        self, config: HostConfig, partition: ClusterPartition, say: Callable[[str], None] = print
    ) -> None:
        """``say``: where a line goes that the user is to see."""
        self.config, self.partition, self.say = config, partition, say
        self.handles: dict[str, GangHandle] = {}
        """Name -> gang."""
        self._started = 0

    @property
    def taken(self) -> int:
        """Number of devices that the gangs hold."""
        return sum(gang.size for gang in self.handles.values())

    def idle(self, size: int | None = None) -> list[GangHandle]:
        """Gangs without a trial; only those of ``size`` devices, if ``size`` is given."""
        free = (gang for gang in self.handles.values() if gang.trial is None)
        return [gang for gang in free if size in (None, gang.size)]

    def start(self, size: int) -> GangHandle:
        """Start a gang of ``size`` devices, which must be free or about to be."""
        name = f"gang-{self._started}"
        self._started += 1
        gang = self.handles[name] = GangHandle(name, size, self.config, self.partition, self.say)
        return gang

    def place(self, trial_id: str, size: int) -> str:
        """Assign a trial to an idle or new gang of ``size`` devices; return the gang's name."""
        gang = next(iter(self.idle(size)), None) or self.start(size)
        gang.trial = trial_id
        return gang.name

    def find(self, trial_id: str) -> GangHandle | None:
        """The gang that has a trial; None if no gang has it."""
        return next((gang for gang in self.handles.values() if gang.trial == trial_id), None)

    def lost(self, gang: GangHandle) -> str:
        """Wait until the inbox of a gang whose workers or inbox have died is back; return the
        gang's name. Trials that are sent there wait for new workers."""
        with suppress(RayActorError):  # a trial that is sent there gets this error
            wait_for(gang.inbox.back, seconds=BACK_SECONDS)
        return gang.name

    def left(self, gang: GangHandle) -> None:
        """Make a gang idle whose trial has ended or was stopped."""
        if gang.trial is not None:
            gang.inbox.forget.remote(ForgetTrial(trial_id=gang.trial))
        gang.trial, gang.idle_since = None, time.monotonic()

    def end(self, gang: GangHandle) -> None:
        """End an idle gang."""
        del self.handles[gang.name]
        gang.end()

    def give_back(self, *, all_idle: bool) -> None:
        """End gangs without a trial: all of them, or those that have been idle for a while.

        Raises:
            BadInput: a gang that has a trial could not be started.
        """
        for gang in self.handles.values():
            if gang.trial is not None and gang.given_up is not None:
                raise gang.given_up
        now = time.monotonic()
        for gang in self.idle():
            if all_idle or (self.partition.shared and now - gang.idle_since > IDLE_SECONDS):
                self.end(gang)
