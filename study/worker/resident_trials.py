"""Trains the trials that are resident on one base model from rung to rung, and reports on them.

A host runs this in a thread (``study.worker.host``), each rank of a gang in its own process.
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
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from study.storage import checkpoints, faults
from study.trials.record import Outcome, Rung
from study.trials.spec import Kind, TrialSpec
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, TrialReport
from study.worker.resident_trial import ResidentTrial
from trainables.errors import BadInput
from trainables.secrecy import format_traceback, without_secrets

if TYPE_CHECKING:
    from trainables.packing.trial_group import Arrival
    from trainables.training.trial import Trial
    from trainables.workload import Workload


CHECKPOINT_BYTES = 3 * 4
"""Bytes of a checkpoint for each trained parameter: its value and AdamW's two moments in fp32."""


class ResidentTrials:
    """The trials on one device, called by one thread. However a trial ends, the end is a report."""

    def __init__(self, config: HostConfig, workload: Workload | None = None) -> None:
        """``workload`` is the model with its data, if it is loaded already."""
        import torch

        from trainables.engine import ranks
        from trainables.memory import kernel_caches
        from trainables.packing.trial_group import TrialGroup
        from trainables.workload import Workload

        torch.set_num_threads(_threads(config))  # holds for this thread only
        kernel_caches.bound()
        self.config = config
        self._devices, self._speaks = ranks.current().count, ranks.current().first
        self.workload = workload or Workload.load(config.workload)
        self.ood: dict[str, Workload] = {}
        """Name -> model with a dataset of ``--ood``, loaded at first use."""
        self.group = TrialGroup(
            self.workload, precision=config.workload.precision, places=config.trials_per_host
        )
        """The trials that are on the base model."""
        self.here: dict[str, ResidentTrial] = {}
        """Trial id -> resident trial."""
        self.training: set[str] = set()
        """Ids of the trials that train towards a rung."""
        self.waiting: list[ResidentTrial] = []
        """Trials that wait to train: a suspect trains alone, or no place is free."""
        self._short = False
        """Whether memory has run out since the last trial entered."""

    def step(self) -> None:
        """Take one step of all trials that train."""
        from trainables.packing.trial_group import Arrival

        began = time.perf_counter()
        try:
            arrivals = self.group.step()
        except Exception as error:  # an error of no trial in particular ends all
            arrivals = [Arrival(key=k, train_loss=math.nan, error=error) for k in self.training]
        share = self._devices * (time.perf_counter() - began) / len(self.training)
        for trial_id in self.training:
            self.here[trial_id].seconds += share
        for arrival in arrivals:
            self.training.discard(arrival.key)
            resident = self.here[arrival.key]
            with self._outcomes(resident):
                self._arrived(resident, arrival)
        self._admit()

    def advance(self, order: AdvanceTrial, reply: Future[TrialReport]) -> None:
        """Let a trial go on to its next report, which ``reply`` takes."""
        from trainables.memory.freed_memory import return_freed

        trial_id = order.spec.id
        if trial_id not in self.here:
            return_freed()
            self._note_peak()
            self.here[trial_id] = ResidentTrial(order=order)
        resident = self.here[trial_id]
        resident.order = replace(resident.order, reported_examples=order.reported_examples)
        if resident.reply is not None:  # the client that asked before has died
            resident.reply.cancel()
        resident.reply = reply
        if trial_id not in self.training and resident not in self.waiting:
            self.waiting.append(resident)
            self._admit()

    def _admit(self) -> None:
        """Let waiting trials go on: all of them together, but a suspect alone."""
        while (resident := self._next()) is not None:
            self.waiting.remove(resident)
            with self._outcomes(resident):
                self._go_on(resident)

    def _next(self) -> ResidentTrial | None:
        """The waiting trial that may go on now; None if there is none."""
        entered = sum(resident.trial is not None for resident in self.here.values())
        for resident in self.waiting:
            if resident.trial is None and entered >= self.config.trials_per_host:
                continue  # until a trial that has a place ends
            neighbours = [self.here[key] for key in self.training]
            alone = any(one.order.suspect for one in (resident, *neighbours))
            return None if alone and self.training else resident
        return None

    def _go_on(self, resident: ResidentTrial) -> None:
        """Report a rung that the study has not heard of, or train to the next one, or answer."""
        if resident.trial is None:
            with self._timed(resident):
                self._enter(resident)
        assert resident.trial is not None
        seen = resident.trial.examples_seen
        ahead = [stop for stop in resident.order.spec.stops if stop > seen]
        if seen > resident.order.reported_examples or not ahead:
            unheard = seen > resident.order.reported_examples
            self._reached(resident, Rung(**resident.report) if unheard else None)
        else:
            self.group.train_to(resident.order.spec.id, ahead[0])
            self.training.add(resident.order.spec.id)

    def _enter(self, resident: ResidentTrial) -> None:
        """Give a trial a place on the base model, and restore its checkpoint if there is one."""
        from trainables.memory.measure import release_cached

        if self._short:  # until now the error kept the tensors of its trial alive
            release_cached()
            self._short = False
        spec = resident.order.spec
        untuned = spec.kind is Kind.UNTUNED
        checkpoints.drop_partial(self.config.study_folder, spec.id)
        restored = None if untuned else self.config.study_folder.fetch_checkpoint(spec.id)
        resident.trial = self.group.enter(
            spec.id,
            spec.config(self.config.regime),
            deepspeed=resident.order.placement.deepspeed,
            micro_batch=resident.order.placement.micro_batch,
            evaluation_batch=resident.order.placement.evaluation_batch,
            activation_checkpointing=resident.order.placement.activation_checkpointing,
            checkpoint=restored,
        )
        resident.report = resident.trial.report
        resident.seconds += resident.report.get("seconds", 0.0)

    def _arrived(self, resident: ResidentTrial, arrival: Arrival) -> None:
        """Validate, save and report a trial that has trained to its next rung.

        Raises:
            Exception: the trial failed on its way to the rung.
        """
        if arrival.error is not None:
            raise arrival.error
        assert resident.trial is not None
        with self._timed(resident):
            loss = resident.trial.validation_loss()
        resident.report = {
            "train_loss": arrival.train_loss,
            "validation_loss": loss,
            "examples_seen": resident.trial.examples_seen,
            "seconds": resident.seconds,
            "reported_at": time.time(),
        }
        if self.config.saves:
            with self._timed(resident):
                self._save(resident.order.spec.id, resident.trial, resident.report)
        self._reached(resident, Rung(**resident.report))

    def _save(self, trial_id: str, trial: Trial, report: Mapping[str, Any]) -> None:
        """Write a trial's checkpoint where it outlives this machine."""
        from trainables.engine import ranks

        study_folder = self.config.study_folder
        answers = trial.save(study_folder.checkpoints(trial_id), report)
        put = ranks.all_gather(study_folder.put_checkpoint(trial_id) if answers else [])
        if self._speaks:
            study_folder.keep_checkpoint(trial_id, [key for keys in put for key in keys])

    def _reached(self, resident: ResidentTrial, rung: Rung | None) -> None:
        """Report a rung, if there is one to report; after the last one, let the trial answer
        too."""
        assert resident.trial is not None
        resident.order = replace(resident.order, suspect=False)
        report = TrialReport(rung=rung)
        if all(stop <= resident.trial.examples_seen for stop in resident.order.spec.stops):
            with self._timed(resident):
                scores = self._answer(resident.order.spec, resident.trial)
            report = replace(report, outcome=Outcome.COMPLETE, scores=scores)
        self._tell(resident, report)

    def _answer(self, spec: TrialSpec, trial: Trial) -> dict[str, float]:
        """Scores of a trial's answers, which are written to the study's folder: on the validation
        split and, outside of the search, on the test split and the datasets of ``--ood``."""
        from study.storage import answers
        from trainables.measures.common.scores import score
        from trainables.training.blind import BLIND, blind

        asked = {"validation": (trial.workload, "validation")}
        if spec.kind is not Kind.SEARCH:
            asked["test"] = (trial.workload, "test")
            asked |= {way: (blind(trial.workload, way, "test"), "test") for way in BLIND}
            for name, config in self.config.ood_workloads.items():
                if name not in self.ood:
                    self.ood[name] = self.workload.with_dataset(config.dataset())
                asked[f"ood.{name}"] = (self.ood[name], "test")
        study_folder, scores = self.config.study_folder, dict[str, float]()
        for name, (workload, split) in asked.items():
            examples, given = workload.dataset.splits()[split], trial.answers(split, workload)
            likely = trial.likelihoods(split, workload) if name == "test" else None
            if self._speaks:
                path = answers.write(study_folder, spec.id, name, examples, given, likely)
                study_folder.keep(path)
            scores |= answers.named(name, score(examples, given, likely))
        return scores

    @contextmanager
    def _outcomes(self, resident: ResidentTrial) -> Iterator[None]:
        """Turn an error in the block into the trial's outcome. A storage fault gives none: the
        trial stays open for ``--resume``.

        Raises:
            Exception: on one of several ranks, an error of which the other ranks may know nothing.
                They wait for this one, so all of them have to be ended
                (``study.execution.gang_pool``).
        """
        from trainables.training.trial import Diverged

        try:
            yield
        except Diverged as error:
            self._fail(resident, Outcome.DIVERGED, str(error))
        except Exception as error:  # whatever else a trial does, the study goes on and records it
            fault = self._fault(resident, error)
            if isinstance(error, BadInput) and not fault:
                self._fail(resident, Outcome.FAILED, str(error))
            elif self._devices > 1:
                raise
            elif fault:
                self._tell(resident, TrialReport(fault=fault))
            else:
                with suppress(OSError):  # Ray's log, which this is for, may be on a full disk
                    print(format_traceback(error), file=sys.stderr)
                self._fail(resident, outcome_of(error), one_line(error))

    def _fault(self, resident: ResidentTrial, error: Exception) -> str:
        """Storage fault that a trial met, in one line; empty if it met none."""
        study_folder = self.config.study_folder
        trained = resident.trial.applied.trained_parameters if resident.trial is not None else 0
        fault = faults.describe_fault(
            error, study_folder.local_storage, checkpoint=trained * CHECKPOINT_BYTES
        )
        if fault and self._devices == 1:  # other ranks may be writing into it; see ``_enter``
            checkpoints.drop_partial(study_folder, resident.order.spec.id)
        return fault

    def _fail(self, resident: ResidentTrial, outcome: Outcome, error: str) -> None:
        """End a trial with an error."""
        self._short = self._short or outcome is Outcome.OUT_OF_MEMORY
        self._tell(resident, TrialReport(outcome=outcome, error=error))

    def _tell(self, resident: ResidentTrial, report: TrialReport) -> None:
        """Send a report to the client that waits for it, with the costs so far."""
        from trainables.engine import ranks

        self._note_peak()
        resident.peak_gib = max(ranks.all_gather(resident.peak_gib))
        costs: dict[str, float] = {
            "seconds": resident.seconds,
            "peak_memory_gib": resident.peak_gib,
        }
        if resident.trial is not None:
            costs["trained_parameters"] = resident.trial.applied.trained_parameters
            costs["trained_percent"] = resident.trial.applied.trained_percent
        remark = self._remark(resident)
        if report.done or report.fault:
            self.forget(resident.order.spec.id)
        ran = {}
        if resident.trial is not None and resident.trial.engine and resident.trial.engine.settings:
            ran = {"deepspeed": json.dumps(dict(resident.trial.engine.settings))}
        reply, resident.reply = resident.reply, None
        if reply is not None and not reply.cancelled():
            rung = replace(report.rung, costs=costs) if report.rung is not None else None
            reply.set_result(replace(report, rung=rung, costs=costs, ran=ran, remark=remark))

    def _remark(self, resident: ResidentTrial) -> str:
        """Remark on what did not run as it should, though it changes no number; else empty."""
        remarks = []
        alone = self.group.alone_reasons.get(resident.order.spec.id)
        if alone and self.config.trials_per_host > 1:
            remarks.append(f"steps alone: {alone}")
        if resident.trial is not None and resident.trial.broken:
            points = " and ".join(f"{seen:,}" for seen in resident.trial.broken)
            remarks.append(f"what was saved at {points} examples was not whole: trained again")
        if (
            resident.trial is not None
            and resident.trial.features is not None
            and resident.trial.features_done < resident.trial.frozen_stages
        ):
            remarks.append(resident.trial.features.refused[resident.trial.frozen_stages])
        return "; ".join(remarks).replace("\n", " ")[:500]

    def forget(self, trial_id: str) -> None:
        """Drop a trial that has ended, was stopped or was given up."""
        self._note_peak()
        resident = self.here.pop(trial_id, None)
        if resident is None:
            return
        self.training.discard(trial_id)
        if resident in self.waiting:
            self.waiting.remove(resident)
        if resident.trial is not None:
            self.group.leave(trial_id)
        self._admit()

    @contextmanager
    def _timed(self, resident: ResidentTrial) -> Iterator[None]:
        """Charge the device-seconds of what happens inside to this trial alone."""
        began = time.perf_counter()
        try:
            yield
        finally:
            resident.seconds += self._devices * (time.perf_counter() - began)

    def _note_peak(self) -> None:
        """Charge the peak memory since the last call to all trials that are here, and reset it."""
        from trainables.memory.measure import peak_gib, reset_peak

        peak = peak_gib()
        for resident in self.here.values():
            resident.peak_gib = max(resident.peak_gib, peak)
        reset_peak()


def _threads(config: HostConfig) -> int:
    """Number of threads that compute. ``OMP_NUM_THREADS`` may ask for fewer than the host's
    processors; more would compete for them."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), config.threads) if asked.isdigit() and int(asked) else config.threads


def outcome_of(error: BaseException) -> Outcome:
    """Outcome of a trial that raised ``error``."""
    from trainables.memory.measure import is_out_of_memory

    return Outcome.OUT_OF_MEMORY if is_out_of_memory(error) else Outcome.FAILED


def one_line(error: BaseException) -> str:
    """An error as one line for a trial's record."""
    return without_secrets(f"{type(error).__name__}: {error}").replace("\n", " ")[:500]
