"""What a study may spend, ``--budget 2h|20gpu-h|500trials``, and when its search must end for it.

Time is spent by the search and by the confirmation, so what the confirmation will take is kept
back: from what this study's own trials took, once there are some.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.records import Kind, Outcome, TrialRecord
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.conductor import Conductor

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""Unit of time -> seconds."""
MOST_TRIALS = 10_000
"""Of a search that ends by time alone."""
RESERVE = 1.1
"""What is kept back, as a multiple of what the confirmation is expected to take."""
LEAST_USE = 0.2
"""Of the devices while trials run; what is less is taken for a slow beginning."""


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a study may spend. None: no limit of that kind."""

    trials: int | None = None
    """Of the search."""
    seconds: float | None = None
    """From the launch to the answer; while a study is interrupted no time is counted."""
    device_seconds: float | None = None
    """Of all trials together, as their costs have them."""

    @property
    def timed(self) -> bool:
        """The number of trials is not known beforehand."""
        return self.seconds is not None or self.device_seconds is not None


def parse(text: str | None) -> Allowance:
    """What ``--budget`` allows.

    Raises:
        BadInput: it cannot be read.
    """
    if text is None:
        return Allowance()
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(?:(trials?)|(gpu-)?(s|min|h|d))", text.strip())
    if found is None or float(found[1]) <= 0:
        raise BadInput(
            f"--budget {text!r} must be like 500trials, 2h or 20gpu-h (also s, min and d)"
        )
    number = float(found[1])
    if found[2]:
        if number != int(number):
            raise BadInput(f"--budget {text!r}: trials are whole")
        return Allowance(trials=int(number))
    seconds = number * UNITS[found[4]]
    return Allowance(device_seconds=seconds) if found[3] else Allowance(seconds=seconds)


class Purse:
    """What is left of an allowance of time. An observer of the conductor."""

    def __init__(
        self,
        allowance: Allowance,
        *,
        devices: int,
        concurrency: int,
        scored: float,
        began: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        devices: that compute.
        concurrency: trials at a time on all of them.
        scored: questions that a confirmed trial answers, for each that a search trial answers.
        began: when this session began, by ``clock``.
        """
        self.allowance, self.devices, self.concurrency = allowance, devices, concurrency
        self.scored, self.clock, self.began = scored, clock, began
        self._before = 0.0
        """Seconds of earlier sessions."""
        self._devices_before = 0.0
        """Device-seconds of earlier sessions."""
        self._ended = 0.0
        """Device-seconds of ended trials."""
        self._running: dict[str, float] = {}
        """Trial -> device-seconds up to its last report."""
        self._first: float | None = None
        """When this session's first trial began."""
        self._answering: list[float] = []
        """Device-seconds that complete search trials took to answer."""

    def resume(self, seconds: float, records: Iterable[TrialRecord]) -> None:
        """Take in what earlier sessions spent."""
        self._before = seconds
        for record in records:
            if record.outcome is not None:
                self.ended(record)
            else:
                self.started(record)
        self._devices_before, self._first = self.device_seconds, None

    def started(self, record: TrialRecord) -> None:
        """Nothing is spent yet, but by trials that go on."""
        self._first = self.clock() if self._first is None else self._first
        self._running[record.spec.id] = record.rungs[-1].seconds if record.rungs else 0.0

    def reported(self, record: TrialRecord) -> None:
        """So much a trial has taken."""
        self._running[record.spec.id] = record.rungs[-1].seconds

    def ended(self, record: TrialRecord) -> None:
        """A trial's whole cost. Of one that was lost with its host, or began anew where its
        checkpoint was lost, nobody told more than its reports did."""
        self._running.pop(record.spec.id, None)
        reported = record.rungs[-1].seconds if record.rungs else 0.0
        seconds = max(record.costs.get("seconds", 0.0), reported)
        self._ended += seconds
        if record.spec.kind is Kind.SEARCH and record.outcome is Outcome.COMPLETE:
            self._answering.append(max(seconds - record.rungs[-1].seconds, 0.0))

    @property
    def seconds(self) -> float:
        """Spent so far, earlier sessions included."""
        return self._before + self.clock() - self.began

    @property
    def device_seconds(self) -> float:
        """Spent so far by all trials."""
        return self._ended + sum(self._running.values())

    @property
    def use(self) -> float:
        """Share of the devices' time, since this session began, that trials took."""
        here = max(self.clock() - self.began, 1e-9)
        return (self.device_seconds - self._devices_before) / (here * self.devices)

    def left(self) -> float | None:
        """Seconds to the end of the study, if an allowance of time says it."""
        allowed, devices = self.allowance.seconds, self.allowance.device_seconds
        if allowed is not None:
            return max(allowed - self.seconds, 0.0)
        if devices is not None and self.use > 0:
            return max(devices - self.device_seconds, 0.0) / (self.use * self.devices)
        return None

    def empty(self, conductor: Conductor) -> bool:
        """Whether what is left is needed for the confirmation."""
        allowed, devices = self.allowance.seconds, self.allowance.device_seconds
        if not self.allowance.timed:
            return False
        kept, kept_devices = self._kept_back(conductor)
        by_clock = allowed is not None and self.seconds + kept >= allowed
        by_devices = devices is not None and self.device_seconds + kept_devices >= devices
        return by_clock or by_devices

    def _kept_back(self, conductor: Conductor) -> tuple[float, float]:
        """Seconds and device-seconds until all is done if the search ends after the next trial.

        The untuned model and each arm's best with each seed; before that, running trials and the
        next one go on to their next rung, where they are stopped.
        """
        answering = sum(self._answering) / len(self._answering) if self._answering else 0.0
        answers = answering * self.scored
        stops, seeds = conductor.stops, conductor.rules.confirm_seeds
        per_example = [
            record.rungs[-1].seconds / record.examples_seen for record in conductor.best().values()
        ]
        trainings = seeds * len(per_example)
        total = seeds * sum(stops[-1] * each + answers for each in per_example) + answers
        mean = sum(per_example) / len(per_example) if per_example else 0.0
        gaps = [stop - before for before, stop in zip((0, *stops), stops, strict=False)]
        to_rung = max(gaps) * mean
        # Trials that share a device take as many times as long as their part of it, and beside what
        # they take there is what passes between them.
        slower = max(self.concurrency / self.devices, 1.0) / self._busy()
        each = total / (trainings + 1)
        waves = math.ceil((trainings + 1) / self.concurrency)
        clock = (waves * each + to_rung) * slower
        devices = total + (len(self._running) + 1) * to_rung
        return RESERVE * clock, RESERVE * devices

    def _busy(self) -> float:
        """Share of the time, since this session's first trial began, that the devices computed."""
        if self._first is None or self.clock() <= self._first:
            return 1.0
        whole = (self.clock() - self._first) * min(self.devices, self.concurrency)
        return min(max((self.device_seconds - self._devices_before) / whole, LEAST_USE), 1.0)
