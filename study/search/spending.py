"""Tracks what a study spends, and decides when the search must end for ``--budget 2h|20gpu-h``.

Both the search and the confirmation spend time, so the time for the confirmation is held back. It
is estimated from what this study's own trials took, once there are some.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

from study.config.spending_limit import SpendingLimit
from study.trials.callback import StudyCallback
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind

RESERVE = 1.1
"""Time that is held back, as a multiple of what the confirmation is expected to take."""
LEAST_USE = 0.2
"""Lower bound on the share of time in which devices are assumed to compute; a slow beginning would
give less."""


class SpendingTracker(StudyCallback):
    """Callback of the scheduler that knows how much of a limit on time is left."""

    def __init__(
        self,
        limit: SpendingLimit,
        *,
        devices: int,
        concurrency: int,
        scored: float,
        began: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start a session in which nothing is spent yet.

        Args:
            limit: what the study may spend.
            devices: number of devices that compute.
            concurrency: trials at a time on all of them.
            scored: questions that a confirmed trial answers, for each that a search trial answers.
            began: time at which this session began, by ``clock``.
            clock: time in seconds.
        """
        self.limit, self.devices, self.concurrency = limit, devices, concurrency
        self.scored, self.clock, self.began = scored, clock, began
        self._before = 0.0
        """Seconds of earlier sessions."""
        self._devices_before = 0.0
        """Device-seconds of earlier sessions."""
        self._ended = 0.0
        """Device-seconds of ended trials."""
        self._running: dict[str, float] = {}
        """Trial id -> device-seconds up to its last report."""
        self._first: float | None = None
        """Time at which this session's first trial began, by ``clock``; None before."""
        self._answering: list[float] = []
        """Device-seconds that complete search trials took to answer."""

    def resume(self, seconds: float, records: Iterable[TrialRecord]) -> None:
        """Add what earlier sessions spent."""
        self._before = seconds
        for record in records:
            if record.outcome is not None:
                self.ended(record)
            else:
                self.started(record)
        self._devices_before, self._first = self.device_seconds, None

    def started(self, record: TrialRecord) -> None:
        """Note that a trial begins. Nothing is spent on it yet, unless it goes on after a
        restart."""
        self._first = self.clock() if self._first is None else self._first
        self._running[record.spec.id] = record.rungs[-1].seconds if record.rungs else 0.0

    def reported(self, record: TrialRecord) -> None:
        """Note what a trial has taken up to its last rung."""
        self._running[record.spec.id] = record.rungs[-1].seconds

    def ended(self, record: TrialRecord) -> None:
        """Note a trial's whole cost."""
        self._running.pop(record.spec.id, None)
        seconds = record.seconds
        self._ended += seconds
        if record.spec.kind is Kind.SEARCH and record.outcome is Outcome.COMPLETE:
            self._answering.append(max(seconds - record.rungs[-1].seconds, 0.0))

    @property
    def seconds(self) -> float:
        """Seconds spent so far, earlier sessions included."""
        return self._before + self.clock() - self.began

    @property
    def device_seconds(self) -> float:
        """Device-seconds spent so far by all trials."""
        return self._ended + sum(self._running.values())

    @property
    def use(self) -> float:
        """Share of the devices' time, since this session began, that trials took."""
        here = max(self.clock() - self.began, 1e-9)
        return (self.device_seconds - self._devices_before) / (here * self.devices)

    def left(self) -> float | None:
        """Seconds to the end of the study; None if time is not limited or nothing was used yet."""
        allowed, devices = self.limit.seconds, self.limit.device_seconds
        if allowed is not None:
            return max(allowed - self.seconds, 0.0)
        if devices is not None and self.use > 0:
            return max(devices - self.device_seconds, 0.0) / (self.use * self.devices)
        return None

    def empty(self, stops: Sequence[int], confirmed: Sequence[TrialRecord]) -> bool:
        """Whether what is left is needed for the confirmation. ``confirmed`` has the best trial of
        each arm as often as it is trained again, and ``stops`` are the examples seen at the
        rungs."""
        allowed, devices = self.limit.seconds, self.limit.device_seconds
        if not self.limit.timed:
            return False
        kept, kept_devices = self._kept_back(stops, confirmed)
        by_clock = allowed is not None and self.seconds + kept >= allowed
        by_devices = devices is not None and self.device_seconds + kept_devices >= devices
        return by_clock or by_devices

    def _kept_back(
        self, stops: Sequence[int], confirmed: Sequence[TrialRecord]
    ) -> tuple[float, float]:
        """Seconds and device-seconds until the study is done if the search ends after the next
        trial.

        They cover the untuned model and each arm's best with each seed. Before that, running trials
        and the next one go on to their next rung, where they are stopped. All of it is multiplied
        by ``RESERVE``.
        """
        answering = sum(self._answering) / len(self._answering) if self._answering else 0.0
        answers = answering * self.scored
        per_example = [record.rungs[-1].seconds / record.examples_seen for record in confirmed]
        trainings = len(per_example)
        total = sum(stops[-1] * each + answers for each in per_example) + answers
        mean = sum(per_example) / len(per_example) if per_example else 0.0
        gaps = [stop - before for before, stop in zip((0, *stops), stops, strict=False)]
        to_rung = max(gaps) * mean
        # Of n trials that share a device each takes n times as long, and time passes between trials
        # too.
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
