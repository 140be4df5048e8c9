"""A host as Ray sees it: an actor. The trials are in its process or in one beside it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from study.forked import Forked
from study.guest import HostConfig
from study.host import Host
from study.placement import Placement


class HostActor:
    """Passes on to a host what clients ask."""

    def __init__(self, config: HostConfig) -> None:
        self._host = _host(config)

    async def advance(
        self, spec: Mapping[str, Any], *, placement: Placement, heard: int, suspect: bool
    ) -> dict[str, Any]:
        """A trial's next report, once there is one; see ``Host.ask``."""
        reply = self._host.ask(spec, placement=placement, heard=heard, suspect=suspect)
        return await asyncio.wrap_future(reply)

    async def leave(self, trial_id: str) -> None:
        """Forget a trial: it was stopped, or given up."""
        self._host.leave(trial_id)

    async def alive(self) -> None:
        """Answers as soon as the host can take trials."""


def _host(config: HostConfig) -> Host | Forked:
    """One forked from this machine's template; where there is none, one that loads for itself."""
    if config.template is not None:
        try:
            # Without its host an actor must not look as if it lived.
            return Forked(config.template, config, lost=partial(os._exit, 1))
        except (OSError, EOFError):
            pass
    return Host(config)
