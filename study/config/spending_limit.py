"""Spending limit of a study: how much time or how many trials ``--budget`` allows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trainables.errors import BadInput
from trainables.options import LARGEST

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""Unit of time -> seconds."""
MOST_TRIALS = 10_000
"""Maximum number of trials of a search that only time ends."""


@dataclass(frozen=True, kw_only=True)
class SpendingLimit:
    """What a study may spend. None: no limit of that kind."""

    trials: int | None = None
    """Trials of the search."""
    seconds: float | None = None
    """Seconds from the launch to the answer. While a study is interrupted no time is counted."""
    device_seconds: float | None = None
    """Device-seconds of all trials together, as in ``TrialRecord.costs``."""

    @property
    def timed(self) -> bool:
        """Whether time is limited, so that the number of trials is not known beforehand."""
        return self.seconds is not None or self.device_seconds is not None


def parse(text: str | None) -> SpendingLimit:
    """The limit that ``--budget`` sets.

    Raises:
        BadInput: ``text`` cannot be read.
    """
    if text is None:
        return SpendingLimit()
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(?:(trials?)|(gpu-)?(s|min|h|d))", text.strip())
    if found is None or not 0 < float(found[1]) <= LARGEST:
        raise BadInput(
            f"--budget {text!r} must be like 500trials, 2h or 20gpu-h (also s, min and d)"
        )
    number = float(found[1])
    if found[2]:
        if number != int(number):
            raise BadInput(f"--budget {text!r}: trials are whole")
        return SpendingLimit(trials=int(number))
    seconds = number * UNITS[found[4]]
    return SpendingLimit(device_seconds=seconds) if found[3] else SpendingLimit(seconds=seconds)
