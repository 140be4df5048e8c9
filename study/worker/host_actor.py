"""The Ray actor of a host. Trials run in the actor's process or in one forked beside it."""

from __future__ import annotations

import asyncio
import os
from functools import partial

from study.worker.forked_host import ForkedHost
from study.worker.host import Host
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, ForgetTrial, TrialReport


class HostActor:
    """Passes the requests of trial clients on to a host."""

    def __init__(self, config: HostConfig) -> None:
        self._host = _host(config)

    async def advance(self, order: AdvanceTrial) -> TrialReport:
        """A trial's next report, once there is one; see ``Host.advance``."""
        return await asyncio.wrap_future(self._host.advance(order))

    async def forget(self, order: ForgetTrial) -> None:
        """Drop a trial that was stopped or given up."""
        self._host.forget(order)

    async def alive(self) -> None:
        """Return as soon as the host can take trials."""

    async def processor_seconds(self) -> float | None:
        """Processor time in seconds that the host has taken to train; None while no client waits
        for a report of a trial."""
        return self._host.processor_seconds()

    async def end(self) -> None:
        """End the host, which hangs, and with it this actor."""
        self._host.end()


def _host(config: HostConfig) -> Host | ForkedHost:
    """A host forked from this machine's zygote or, where there is none, one that loads model and
    data itself."""
    if config.zygote is not None:
        try:
            # An actor whose host has died must not look alive: it exits.
            return ForkedHost(config.zygote, config, lost=partial(os._exit, 1))
        except (OSError, EOFError):
            pass
    return Host(config)
