"""The Ray cluster of a study: joined, looked at, and waited for where it is lost."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorUnavailableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.arithmetic import Arithmetic
from study.devices import Devices
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.lanes import Lanes

AGAIN_SECONDS = 0.5
"""Between two questions to an actor whose node may be lost."""


def connect(address: str | None) -> None:
    """Join the Ray cluster at ``address``, or start one on this machine, unless that is done.

    Raises:
        BadInput: there is no cluster at that address.
    """
    if ray.is_initialized():
        return
    # Ray's own lines are for its developers; what a trial's process has to say is in its outcome.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise BadInput(
            f"no Ray cluster at --address {address!r} ({line}); leave it away to start one here "
            "(a cluster with token authentication wants RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN)"
        ) from None


def leave(lanes: Lanes) -> threading.Thread:
    """Give back what the study holds, and leave the cluster, or end it if it was started here: in
    the returned thread, since it takes a second or two in which nobody needs it any more."""

    def work() -> None:
        lanes.give_back(all_idle=True)
        ray.shutdown()

    thread = threading.Thread(target=work, name="leave")
    thread.start()
    return thread


def drop(drop_running: Callable[[], None]) -> None:
    """Leave the cluster at once, with all that runs there, which ``drop_running`` lets go: the
    study stops before its end. To be done while the hosts' processes live, or Ray tells the user of
    each that it died."""
    drop_running()
    ray.shutdown()


def nodes() -> list[Mapping[str, float]]:
    """What each node of the cluster has."""
    return [node["Resources"] for node in _living()]


def arithmetic(precision: str) -> Arithmetic:
    """How the nodes compute that have devices, or processors where none has; the driver's machine
    may have neither. Where there is no node yet, this waits for the first."""

    def ask() -> Arithmetic:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # which Ray hides from whoever takes none
        return Arithmetic.here(precision)

    # It takes nothing, so that it need not wait for trials of others; and the process ends with it.
    task: Any = ray.remote(num_gpus=0, num_cpus=0, max_calls=1)(ask)
    living = _living()
    with_devices = [node for node in living if node["Resources"].get("GPU", 0) >= 1]
    asked = with_devices or [node for node in living if node["Resources"].get("CPU", 0) >= 1]
    answers = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in asked
    ]
    return Arithmetic.joint(ray.get(answers or [task.options(num_gpus=1).remote()]))


def fits(devices: Devices) -> int:
    """Hosts that the nodes which are there now have room for, if nobody else uses them."""
    kind, each = ("GPU", devices.gpus) if devices.gpus else ("CPU", devices.cpus)
    return sum(int(node["Resources"].get(kind, 0) // each) for node in _living())


def _living() -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = ray.nodes()
    return [node for node in told if node["Alive"]]


def wait_for(method: Any, *, seconds: float = math.inf) -> None:
    """Wait until an actor answers whose node may be lost: it is back when Ray has given the node up
    and found room on another, and whoever asks sooner is told at once that it is not there.

    Ray would ask again by itself, and tell the user's terminal so each time (``max_task_retries``).

    Args:
        method: of the actor, without arguments.
        seconds: to wait at most.

    Raises:
        RayActorError: it is gone for good.
    """
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            ray.get(method.remote())
            return
        except ActorUnavailableError:
            time.sleep(AGAIN_SECONDS)
