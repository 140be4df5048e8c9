"""Trials as guests on a resident base: taken in, trained from rung to rung, told of, seen off.

A host has them in a thread (``study.host``), each rank of a gang in its own process.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from study import checkpoints, faults
from study.guest import Guest, HostConfig
from study.placement import Placement
from study.records import Kind, Outcome, TrialSpec
from trainables.errors import BadInput
from trainables.secrecy import traced, without_secrets

if TYPE_CHECKING:
    from trainables.lane import Arrival
    from trainables.trial import Trial
    from trainables.workload import Workload


CHECKPOINT_BYTES = 3 * 4
"""For each trained parameter: its value and the two moments of AdamW, in fp32."""


class Guests:
    """Those that are here. One thread calls it. Every way in which a trial can end is a report."""

    def __init__(self, config: HostConfig, workload: Workload | None = None) -> None:
        """``workload`` if it was loaded already."""
        import torch

        from trainables import ranks
        from trainables.lane import Lane
        from trainables.workload import Workload

        torch.set_num_threads(_threads(config))  # of this thread
        self.config = config
        self._devices, self._speaks = ranks.here().count, ranks.here().first
        self.workload = workload or Workload.load(config.workload)
        self.others: dict[str, Workload] = {}
        """Loaded when the first trial is confirmed."""
        self.lane = Lane(
            self.workload,
            precision=config.precision,
            places=config.places,
        )
        self.here: dict[str, Guest] = {}
        """By trial id."""
        self.training: set[str] = set()
        """Who is on the way to a rung."""
        self.waiting: list[Guest] = []
        """Who would be, but for a suspect, or for want of a place."""
        self._short = False
        """Memory has run out since the last trial entered."""

    def step(self) -> None:
        """One step of all that train."""
        from trainables.lane import Arrival

        began = time.perf_counter()
        try:
            arrivals = self.lane.step()
        except Exception as error:  # what the lane does not lay at one trial's door, all bear
            arrivals = [Arrival(key=k, train_loss=math.nan, error=error) for k in self.training]
        share = self._devices * (time.perf_counter() - began) / len(self.training)
        for trial_id in self.training:
            self.here[trial_id].seconds += share
        for arrival in arrivals:
            self.training.discard(arrival.key)
            guest = self.here[arrival.key]
            with self._outcomes(guest):
                self._arrived(guest, arrival)
        self._admit()

    def take(
        self,
        spec: TrialSpec,
        placement: Placement,
        heard: int,
        suspect: bool,
        reply: Future[dict[str, Any]],
    ) -> None:
        """Someone asks for a trial's next report."""
        if spec.id not in self.here:
            self._note_peak()
            self.here[spec.id] = Guest(spec=spec, placement=placement, suspect=suspect)
        guest = self.here[spec.id]
        if guest.reply is not None:  # whoever asked before has died
            guest.reply.cancel()
        guest.reply, guest.heard = reply, heard
        if spec.id not in self.training and guest not in self.waiting:
            self.waiting.append(guest)
            self._admit()

    def _admit(self) -> None:
        """Let those who wait go on: all together, a suspect alone."""
        while (guest := self._next()) is not None:
            self.waiting.remove(guest)
            with self._outcomes(guest):
                self._go_on(guest)

    def _next(self) -> Guest | None:
        entered = sum(guest.trial is not None for guest in self.here.values())
        for guest in self.waiting:
            if guest.trial is None and entered >= self.config.places:
                continue  # until one of those that have a place ends
            alone = guest.suspect or any(self.here[key].suspect for key in self.training)
            return None if alone and self.training else guest
        return None

    def _go_on(self, guest: Guest) -> None:
        """Tell of a rung that nobody heard of, train to the next, or answer."""
        if guest.trial is None:
            with self._timed(guest):
                self._enter(guest)
        assert guest.trial is not None
        seen = guest.trial.examples_seen
        ahead = [stop for stop in guest.spec.stops if stop > seen]
        if seen > guest.heard or not ahead:
            self._reached(guest, guest.report if seen > guest.heard else {})
        else:
            self.lane.train_to(guest.spec.id, ahead[0])
            self.training.add(guest.spec.id)

    def _enter(self, guest: Guest) -> None:
        from trainables import memory

        if self._short:  # what the trial held that ran out of it is held by its error until now
            memory.give_back()
            self._short = False
        spec = guest.spec
        untuned = spec.kind is Kind.UNTUNED
        checkpoints.drop_partial(self.config.shelf.folder, spec.id)
        restored = None if untuned else self.config.shelf.fetch_checkpoint(spec.id)
        guest.trial = self.lane.enter(
            spec.id,
            spec.config(self.config.regime),
            deepspeed=guest.placement.deepspeed,
            micro_batch=guest.placement.micro_batch,
            evaluation_batch=guest.placement.evaluation_batch,
            checkpointing=guest.placement.checkpointing,
            checkpoint=restored,
        )
        guest.report = guest.trial.report
        guest.seconds += guest.report.get("seconds", 0.0)

    def _arrived(self, guest: Guest, arrival: Arrival) -> None:
        """A trial has trained to its next rung, or failed to."""
        from trainables import ranks

        if arrival.error is not None:
            raise arrival.error
        assert guest.trial is not None
        with self._timed(guest):
            loss = guest.trial.validation_loss()
        guest.report = {
            "train_loss": arrival.train_loss,
            "validation_loss": loss,
            "examples_seen": guest.trial.examples_seen,
            "seconds": guest.seconds,
            "reported_at": time.time(),
        }
        with self._timed(guest):
            shelf, trial_id = self.config.shelf, guest.spec.id
            answers = guest.trial.save(checkpoints.path(shelf.folder, trial_id), guest.report)
            put = ranks.gathered(shelf.put_checkpoint(trial_id) if answers else [])
            if self._speaks:
                shelf.keep_checkpoint(trial_id, [key for keys in put for key in keys])
        self._reached(guest, guest.report)

    def _reached(self, guest: Guest, report: Mapping[str, Any]) -> None:
        """Tell of a rung; at the end, answer too."""
        assert guest.trial is not None
        guest.suspect = False
        result: dict[str, Any] = {"rung": dict(report)} if report else {}
        if all(stop <= guest.trial.examples_seen for stop in guest.spec.stops):
            with self._timed(guest):
                scores = self._answer(guest.spec, guest.trial)
            result |= {"outcome": Outcome.COMPLETE, "scores": scores}
        self._tell(guest, result)

    def _answer(self, spec: TrialSpec, trial: Trial) -> dict[str, float]:
        """Accuracies on validation; if this is not the search, on test and on other data too."""
        from study.answers import scored

        asked = {"validation": (self.workload, "validation")}
        if spec.kind is not Kind.SEARCH:
            asked["test"] = (self.workload, "test")
            for name, config in self.config.others.items():
                if name not in self.others:
                    self.others[name] = self.workload.on(config.dataset())
                asked[f"ood.{name}"] = (self.others[name], "test")
        return scored(spec.id, trial, asked, self.config.shelf if self._speaks else None)

    @contextmanager
    def _outcomes(self, guest: Guest) -> Iterator[None]:
        """Whatever goes wrong inside is the trial's outcome, but for a fault of the place: the
        trial has none then, and is left to whoever resumes the study.

        Raises:
            Exception: on one of several ranks, what the others may know nothing of. They wait for
                this one, so nothing can be done but to end all of them (``study.gangs``).
        """
        from trainables.trial import Diverged

        try:
            yield
        except Diverged as error:
            self._fail(guest, Outcome.DIVERGED, str(error))
        except Exception as error:  # whatever else a trial does, the study goes on and records it
            place = self._place(guest, error)
            if isinstance(error, BadInput) and not place:
                self._fail(guest, Outcome.FAILED, str(error))
            elif self._devices > 1:
                raise
            elif place:
                self._tell(guest, {"place": place})
            else:
                with suppress(OSError):  # Ray's log, which this is for, may be on a full disk
                    print(traced(error), file=sys.stderr)
                self._fail(guest, outcome_of(error), one_line(error))

    def _place(self, guest: Guest, error: Exception) -> str:
        """What is wrong with the place, if that is what a trial met; see ``faults.of_place``."""
        folder = self.config.shelf.folder
        trained = guest.trial.applied.trained_parameters if guest.trial is not None else 0
        place = faults.of_place(error, folder.parent, checkpoint=trained * CHECKPOINT_BYTES)
        if place and self._devices == 1:  # other ranks may be writing into it; see ``_enter``
            checkpoints.drop_partial(folder, guest.spec.id)
        return place

    def _fail(self, guest: Guest, outcome: Outcome, error: str) -> None:
        self._short = self._short or outcome is Outcome.OUT_OF_MEMORY
        self._tell(guest, {"outcome": outcome, "error": error})

    def _tell(self, guest: Guest, result: Mapping[str, Any]) -> None:
        """Send a report to whoever waits for it."""
        from trainables import ranks

        self._note_peak()
        guest.peak_gib = max(ranks.gathered(guest.peak_gib))
        costs: dict[str, float] = {"seconds": guest.seconds, "peak_memory_gib": guest.peak_gib}
        if guest.trial is not None:
            costs["trained_parameters"] = guest.trial.applied.trained_parameters
            costs["trained_percent"] = guest.trial.applied.trained_percent
        remark = self._remark(guest)
        if "outcome" in result or "place" in result:
            self.forget(guest.spec.id)
        ran = {}
        if guest.trial is not None and guest.trial.engine and guest.trial.engine.settings:
            ran = {"deepspeed": json.dumps(dict(guest.trial.engine.settings))}
        reply, guest.reply = guest.reply, None
        if reply is not None and not reply.cancelled():
            said = {"costs": costs, "ran": ran, "remark": remark, "done": "outcome" in result}
            reply.set_result({**said, **result})

    def _remark(self, guest: Guest) -> str:
        """What is not as it should be, though it changes no number."""
        said = []
        alone = self.lane.alone.get(guest.spec.id)
        if alone and self.config.places > 1:
            said.append(f"steps alone: {alone}")
        if guest.trial is not None and guest.trial.broken:
            points = " and ".join(f"{seen:,}" for seen in guest.trial.broken)
            said.append(f"what was saved at {points} examples was not whole: trained again")
        if guest.trial is not None and guest.trial.features_done < guest.trial.frozen_stages:
            said.append(self.lane.features.refused[guest.trial.frozen_stages])
        return "; ".join(said).replace("\n", " ")[:500]

    def forget(self, trial_id: str) -> None:
        self._note_peak()
        guest = self.here.pop(trial_id, None)
        if guest is None:
            return
        self.training.discard(trial_id)
        if guest in self.waiting:
            self.waiting.remove(guest)
        if guest.trial is not None:
            self.lane.leave(trial_id)
        self._admit()

    @contextmanager
    def _timed(self, guest: Guest) -> Iterator[None]:
        """What happens inside is on the trial's account alone."""
        began = time.perf_counter()
        try:
            yield
        finally:
            guest.seconds += self._devices * (time.perf_counter() - began)

    def _note_peak(self) -> None:
        """Put the peak since the last time down to all that were there, and start anew."""
        from trainables import memory

        peak = memory.peak_gib()
        for guest in self.here.values():
            guest.peak_gib = max(guest.peak_gib, peak)
        memory.reset_peak()


def _threads(config: HostConfig) -> int:
    """The shell may ask for fewer than there are: more would fight over a device's processors."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), config.threads) if asked.isdigit() and int(asked) else config.threads


def outcome_of(error: BaseException) -> Outcome:
    """How a trial ended that raised it."""
    from trainables import memory

    return Outcome.OUT_OF_MEMORY if memory.lacks(error) else Outcome.FAILED


def one_line(error: BaseException) -> str:
    """What a trial's record says of it."""
    return without_secrets(f"{type(error).__name__}: {error}").replace("\n", " ")[:500]
