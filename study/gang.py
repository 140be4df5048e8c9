"""Several devices that train one trial together, by Ray Train: what its workers do, and its door.

To whoever asks for a trial's next report a gang is a host like any other: ``Door`` has a host's
face. Behind it the workers of a ``TorchTrainer`` live as long as the gang, with the base and the
data. The first of them fetches orders at the door, all of them carry them out in step, and the
first one answers. So a trial costs no new process, and one that is stopped is dropped by all ranks
between two steps, whereupon they take the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray

from study.guest import HostConfig
from study.guests import Guests
from study.placement import Placement
from study.records import TrialSpec

PATIENCE_SECONDS = 20.0
"""After which a rank that waits for orders looks up: collectives do not wait for ever."""


@dataclass(frozen=True, kw_only=True)
class Take:
    """A trial's next report is asked for; see ``Guests.take``."""

    spec: Mapping[str, Any]
    placement: Placement
    heard: int
    suspect: bool


@dataclass(frozen=True, kw_only=True)
class Forget:
    """A trial was stopped, or given up."""

    trial: str


@dataclass(frozen=True, kw_only=True)
class End:
    """The gang is not needed any more."""


Order = Take | Forget | End


class NotMet(RuntimeError):
    """Workers of a gang found no way to each other: what torch said of it, in one line."""


class Door:
    """Where trials are brought to a gang. An actor that computes nothing."""

    def __init__(self) -> None:
        self._orders: asyncio.Queue[Order] = asyncio.Queue()
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._open = asyncio.Event()

    async def advance(
        self, spec: Mapping[str, Any], *, placement: Placement, heard: int, suspect: bool
    ) -> dict[str, Any]:
        """As ``study.host.Host.advance``."""
        trial = TrialSpec.of(spec).id
        if trial in self._replies:  # whoever asked before has died
            self._replies[trial].cancel()
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[trial] = reply
        order = Take(spec=spec, placement=placement, heard=heard, suspect=suspect)
        self._orders.put_nowait(order)
        return await reply

    async def leave(self, trial: str) -> None:
        """As ``study.host.Host.leave``."""
        self._replies.pop(trial, None)
        self._orders.put_nowait(Forget(trial=trial))

    async def alive(self) -> None:
        """Answers as soon as the workers are there."""
        await self._open.wait()

    async def back(self) -> None:
        """Answers as soon as the door is there, with workers or without."""

    async def end(self) -> None:
        """Let the workers leave."""
        self._orders.put_nowait(End())

    async def opened(self) -> bool:
        """Whether the workers are there, or were when they ended."""
        return self._open.is_set()

    # What follows is called by the first worker, and by whoever started the workers.

    async def open(self) -> None:
        """The workers are there."""
        self._open.set()

    async def next(self) -> Order | None:
        """The next order; None if there is none for a while."""
        orders = self._orders
        try:
            return await asyncio.wait_for(orders.get(), PATIENCE_SECONDS)
        except TimeoutError:
            return None

    async def told(self, trial: str, result: dict[str, Any]) -> None:
        """A trial's report."""
        reply = self._replies.pop(trial, None)
        if reply is not None and not reply.done():
            reply.set_result(result)

    async def fell(self, why: Mapping[str, Any]) -> None:
        """A trial has ended all workers, or the place has: tell why; others come.

        Args:
            why: ``outcome`` and ``error`` of the trial, or ``place``, as in ``Host.ask``.
        """
        self._open.clear()
        self._orders = asyncio.Queue()  # the old one may still have someone who waits for it
        for trial in list(self._replies):
            await self.told(trial, {"costs": {}, "done": "outcome" in why, **why})


def work(given: Mapping[str, Any]) -> None:
    """The life of one worker, in the process group that Ray Train has set up.

    Args:
        given: ``door``, the name of the gang's, and ``config``, a ``HostConfig`` of one place.
    """
    from trainables import ranks

    config: HostConfig = given["config"]
    guests = Guests(config)
    orders = _Orders(given["door"]) if ranks.here().first else None
    ranks.wait()
    if orders is not None:
        orders.begin()
    while True:
        order = ranks.of_first(orders.next(wait=not guests.training) if orders else None)
        match order:
            case Take():
                spec, reply = TrialSpec.of(order.spec), Future[dict[str, Any]]()
                if orders is not None:
                    orders.answer(spec.id, reply)
                guests.take(spec, order.placement, order.heard, order.suspect, reply)
            case Forget():
                guests.forget(order.trial)
            case End():
                return
            case None if guests.training:
                guests.step()


class _Orders:
    """What the first worker hears at the door, and says there."""

    def __init__(self, door: str) -> None:
        self._door = ray.get_actor(door)
        self._asked: Any = None

    def begin(self) -> None:
        """Say that all are here."""
        ray.get(self._door.open.remote())

    def next(self, *, wait: bool) -> Order | None:
        """The next order, None if there is none: yet, or for a while."""
        self._asked = self._asked or self._door.next.remote()
        if not wait and not ray.wait([self._asked], timeout=0)[0]:
            return None
        asked, self._asked = self._asked, None
        order: Order | None = ray.get(asked)
        return order

    def answer(self, trial: str, reply: Future[dict[str, Any]]) -> None:
        """Pass on a report as soon as there is one."""

        def tell(done: Future[dict[str, Any]]) -> None:
            if not done.cancelled():
                self._door.told.remote(trial, done.result())

        reply.add_done_callback(tell)
