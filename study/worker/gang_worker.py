"""Trains one trial on several devices with Ray Train: the workers of a gang, and the gang's inbox.

To the client of a trial, a gang is a host like any other: ``GangInbox`` has the methods of
``HostActor``. Behind it, the workers of a ``TorchTrainer`` live as long as the gang and keep the
base model and the data. Rank 0 fetches orders from the inbox, all ranks carry them out in step, and
rank 0 answers. So a new trial needs no new process. A trial that is stopped is dropped by all ranks
between two steps, and they take the next order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import ray

from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, EndGang, ForgetTrial, Order, TrialReport
from study.worker.resident_trials import ResidentTrials

PATIENCE_SECONDS = 20.0
"""Longest time in seconds that rank 0 waits for an order. Then it tells the other ranks that there
is none, because the collective in which they wait would time out."""
COLLECTIVE_SECONDS = 1800.0
"""Longest time in seconds that ranks wait for one another, as Ray Train has it. One that has not
come by then hangs."""
LINK = (
    "set {}_SOCKET_IFNAME to the network between the nodes (ip addr), and see that no firewall is "
    "between them"
)
"""Advice for devices that do not find each other, with the name of the backend (NCCL or GLOO) to be
filled in."""


class RendezvousFailed(RuntimeError):
    """Workers of a gang found no way to each other: what torch said of it, in one line."""


class GangInbox:
    """Actor that takes orders for a gang and passes them to its workers. It computes nothing."""

    def __init__(self) -> None:
        self._orders: asyncio.Queue[Order] = asyncio.Queue()
        self._replies: dict[str, asyncio.Future[TrialReport]] = {}
        self._open = asyncio.Event()

    async def advance(self, order: AdvanceTrial) -> TrialReport:
        """A trial's next report, once there is one; as in ``HostActor.advance``."""
        trial = order.spec.id
        if trial in self._replies:  # the client that asked before has died
            self._replies[trial].cancel()
        reply: asyncio.Future[TrialReport] = asyncio.get_running_loop().create_future()
        self._replies[trial] = reply
        self._orders.put_nowait(order)
        return await reply

    async def forget(self, order: ForgetTrial) -> None:
        """Drop a trial that was stopped or given up."""
        self._replies.pop(order.trial_id, None)
        self._orders.put_nowait(order)

    async def alive(self) -> None:
        """Return as soon as the workers are ready."""
        await self._open.wait()

    async def back(self) -> None:
        """Return as soon as this actor runs, with or without workers."""

    async def end(self) -> None:
        """Order the workers to end."""
        self._orders.put_nowait(EndGang())

    async def opened(self) -> bool:
        """Whether the workers are there, or were when they ended."""
        return self._open.is_set()

    # What follows is called by the first worker, and by whoever started the workers.

    async def open(self) -> None:
        """Record that the workers take orders."""
        self._open.set()

    async def next(self) -> Order | None:
        """The next order; None if none comes within ``PATIENCE_SECONDS``."""
        orders = self._orders
        try:
            return await asyncio.wait_for(orders.get(), PATIENCE_SECONDS)
        except TimeoutError:
            return None

    async def answer(self, trial: str, report: TrialReport) -> None:
        """Answer the client that waits for a trial's report."""
        reply = self._replies.pop(trial, None)
        if reply is not None and not reply.done():
            reply.set_result(report)

    async def answer_all(self, why: TrialReport) -> None:
        """Answer waiting clients with the reason for which all workers ended, and drop pending
        orders; new workers are started. ``why`` has the outcome and the error of the trial that
        ended them, or a fault."""
        self._open.clear()
        self._orders = asyncio.Queue()  # somebody may still wait at the old queue
        for trial in list(self._replies):
            await self.answer(trial, why)


def run_worker(given: Mapping[str, Any]) -> None:
    """Run one worker, in the process group that Ray Train has set up, until the gang ends.

    Args:
        given: ``inbox``, the name of the gang's inbox actor, and ``config``, a ``HostConfig`` with
            ``trials_per_host=1``.
    """
    from trainables.engine import ranks

    config: HostConfig = given["config"]
    residents = ResidentTrials(config)
    orders = _Orders(given["inbox"]) if ranks.current().first else None
    ranks.barrier()
    if orders is not None:
        orders.begin()
    while True:
        order = ranks.broadcast(orders.next(wait=not residents.training) if orders else None)
        match order:
            case AdvanceTrial():
                reply = Future[TrialReport]()
                if orders is not None:
                    orders.answer(order.spec.id, reply)
                residents.advance(order, reply)
            case ForgetTrial():
                residents.forget(order.trial_id)
            case EndGang():
                return
            case None if residents.training:
                residents.step()


class _Orders:
    """Rank 0's connection to the inbox."""

    def __init__(self, inbox: str) -> None:
        self._inbox = ray.get_actor(inbox)
        self._asked: Any = None

    def begin(self) -> None:
        """Tell the inbox that all ranks are ready."""
        ray.get(self._inbox.open.remote())

    def next(self, *, wait: bool) -> Order | None:
        """The next order; None if there is none yet or, with ``wait``, none for a while."""
        self._asked = self._asked or self._inbox.next.remote()
        if not wait and not ray.wait([self._asked], timeout=0)[0]:
            return None
        asked, self._asked = self._asked, None
        order: Order | None = ray.get(asked)
        return order

    def answer(self, trial: str, reply: Future[TrialReport]) -> None:
        """Send a trial's report to the inbox as soon as there is one."""

        def tell(done: Future[TrialReport]) -> None:
            if not done.cancelled():
                self._inbox.answer.remote(trial, done.result())

        reply.add_done_callback(tell)
