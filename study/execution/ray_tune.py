"""Runs the trials of a study through Ray Tune, which takes them to hosts and brings reports back.

The study's own scheduler decides what to run and what to stop; the Tune searcher and the Tune
scheduler in this module only translate.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.execution.dispatcher import Dispatcher
from study.execution.hung_processes import HungProcesses
from study.execution.trial_client import TrialClient
from study.planning.arm_placements import OUT_OF_MEMORY_KEY
from study.search.scheduler import StudyScheduler
from study.storage import scratch
from study.storage.faults import StorageFault
from study.trials.record import Outcome, TrialEnd
from study.worker.orders import AdvanceTrial, TrialReport
from trainables.command import was_signalled
from trainables.errors import BadInput
from trainables.memory.freed_memory import return_freed
from trainables.secrecy import without_secrets

RETRIES = 3
"""Number of times that a trial whose host died is resumed from its last rung."""
HANGS = 3
"""Number of times, beside ``RETRIES``, that a trial is resumed of which a process hung. After that
the study stops: it would take hours, and nothing says that the trial is to blame."""
CLIENT_BYTES = 128 * 2**20
"""Memory in bytes that Ray reserves for a trial's client, so that the client need not reserve a
processor: the hosts have all of them."""


class TuneSearcher(Searcher):
    """Tune searcher that takes trials from the study's scheduler and tells it how they ended."""

    def __init__(self, scheduler: StudyScheduler, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.scheduler, self.dispatcher = scheduler, dispatcher
        self.hung = HungProcesses(hosts=dispatcher.hosts, gangs=dispatcher.gangs)
        self.ids: dict[str, str] = {}
        """Tune's trial id -> the study's trial id."""
        self.errors: dict[str, str] = {}
        """Tune's trial id -> why its host died, in one line."""
        self.stopped: Exception | None = None
        """Error that ends the study early. Tune may take it for the fault of a trial and go on a
        little: nothing more is written then."""

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Let an error that is raised in the block end the study."""
        try:
            yield
        except Exception as error:  # whatever it is, it goes on to who runs the study
            self.stopped = error
            raise

    # Ray's own searchers return FINISHED too, which its annotation leaves out.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Give Tune the next trial; None if none can begin yet."""
        if self.stopped:
            return None
        with self.ending():
            start = self.dispatcher.next(self.scheduler.next)
            if start is None:
                return Searcher.FINISHED if self.scheduler.done else None
            self.scheduler.record_placement(start.spec.id, start.placement.plain())
        spec = start.spec
        self.ids[trial_id] = spec.id
        order = AdvanceTrial(
            spec=spec,
            placement=start.placement,
            reported_examples=self.scheduler.journal.records[spec.id].examples_seen,
        )
        return {"order": order, "host": start.host}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record a trial that ended by itself, was stopped, or lost its host once too often."""
        if not self.stopped:
            with self.ending():
                self._ended(trial_id, (result or {}).get("report", TrialReport()), error)

    def _ended(self, trial_id: str, report: TrialReport, error: bool) -> None:
        """Record the end of a trial whose last report is ``report``, an empty one if there was
        none. ``error``: whether its host died once too often."""
        outcome = report.outcome or (Outcome.FAILED if error else Outcome.PRUNED)
        lost = f"its host died {RETRIES + 1} times: {self.errors.pop(trial_id, 'killed')}"
        ours = self.ids.pop(trial_id)
        self.dispatcher.left(ours)
        self.scheduler.record_placement(ours, report.ran)
        spec = self.scheduler.journal.records[ours].spec
        if outcome is Outcome.OUT_OF_MEMORY and (note := self.dispatcher.again(spec)):
            text = f"{report.error} {note}".strip()
            self.scheduler.record_placement(ours, {OUT_OF_MEMORY_KEY: text})
            return
        end = TrialEnd(
            outcome=outcome,
            costs=report.costs,
            scores=report.scores,
            error=report.error or (lost if error else ""),
            remark=report.remark,
        )
        self.scheduler.ended(ours, end)

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles a searcher to restore it; a study has its journal for
        that."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal holds all state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a study is resumed from its journal."""


class TuneScheduler(FIFOScheduler):
    """Tune scheduler that passes reports to the study's scheduler, which may stop their trials."""

    def __init__(self, searcher: TuneSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray
        self.searcher = searcher
        self.keeping = False
        """Whether Tune was told to keep all clients; see ``on_trial_add``."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: a study is restored from its journal."""
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Before the first trial, tell Tune to keep every client for later trials. By default it
        keeps only one client that is idle, and starts new ones a moment later. Before each, let it
        forget those that have ended."""
        if not self.keeping:
            cache, clients = tune_controller._actor_cache, self.searcher.dispatcher.concurrency
            cache.increase_max(trial.placement_group_factory, by=clients)
            self.keeping = True
        # Its state as JSON, and with it the text of each object that JSON cannot hold, which Tune
        # would keep to restore trials.
        trial.get_json_state = lambda: ("{}", "{}")
        _forget_ended(tune_controller)
        return_freed()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a report that is not a trial's last.

        Raises:
            StorageFault: the report names a storage fault.
        """
        goes_on = self._report(trial.trial_id, result["report"])
        return TrialScheduler.CONTINUE if goes_on else self.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Resume a trial whose host or client died from its last rung, on a host that is alive.

        If that was once too often, Tune calls the searcher's ``on_trial_complete`` next, without
        the reason. So the reason is kept here.
        """
        searcher = self.searcher
        if searcher.stopped:
            return
        lines = str(trial.get_error() or "").strip().splitlines()
        if lines:
            searcher.errors[trial.trial_id] = without_secrets(lines[-1])[:500]
        ours = searcher.ids[trial.trial_id]
        reported = searcher.scheduler.journal.records[ours].examples_seen
        order = replace(trial.config["order"], reported_examples=reported, suspect=True)
        with searcher.ending():
            host = searcher.dispatcher.lost(ours)
        trial.set_config({"order": order, "host": host})

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Pass on the last report of a trial that ended by itself."""
        report: TrialReport = result["report"]
        if report.done:
            self._report(trial.trial_id, report)

    def _report(self, tune_id: str, report: TrialReport) -> bool:
        """Pass a report on; return whether the trial goes on."""
        searcher = self.searcher
        if searcher.stopped:
            return False
        with searcher.ending():
            if report.fault:
                raise StorageFault(report.fault)
            return report.rung is None or searcher.scheduler.reported(
                searcher.ids[tune_id], report.rung
            )


def _forget_ended(tune_controller: Any) -> None:
    """Let Tune forget the trials that have ended. It would keep each of them, with its last report,
    until the study ends, and look through them all before each step. What a study needs of them is
    in its journal."""
    for trial in [each for each in tune_controller.get_trials() if each.is_finished()]:
        tune_controller._trials.remove(trial)
        tune_controller._trial_metadata.pop(trial.trial_id, None)
        for trials in (
            tune_controller._live_trials,  # which those that failed stay in
            tune_controller._stopped_trials,
            tune_controller._failed_trials,
            tune_controller._trials_to_cache,
        ):
            trials.discard(trial)


class NoProgress(TrialProgressCallback):
    """Tune callback in the place of the one that prints trials as they go on, which Tune would add
    and which keeps every trial until the study ends. Nothing would be printed (``verbose=0``)."""

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """Do nothing, as at errors and ends."""

    on_trial_error = on_trial_complete = on_trial_result


class Caretaker(tune.Callback):
    """Tune callback that releases devices as soon as they are not needed, and ends processes that
    hang, whether or not Tune asks for a trial."""

    def __init__(self, searcher: TuneSearcher) -> None:
        self.searcher = searcher

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look after devices and processes; Tune calls this several times a second.

        Raises:
            KeyboardInterrupt: a signal has asked the study to end.
        """
        searcher, dispatcher = self.searcher, self.searcher.dispatcher
        if searcher.stopped:
            raise searcher.stopped
        if was_signalled():
            raise KeyboardInterrupt
        with searcher.ending():
            self._excuse(searcher.hung.look(), trials)
            dispatcher.give_back(
                all_idle=not (searcher.scheduler.may_begin_more or dispatcher.waits)
            )

    def _excuse(self, hung: set[str], trials: list[Any]) -> None:
        """Let trials that lost a process because it hung be resumed once more than others.

        Raises:
            BadInput: it happened to one trial more than ``HANGS`` times.
        """
        for trial in trials if hung else ():
            if (ours := self.searcher.ids.get(trial.trial_id)) in hung:
                trial.max_failures += 1
                hangs = trial.max_failures - RETRIES
                if hangs > HANGS:
                    raise BadInput(
                        f"processes have hung {hangs} times while trial {ours} was trained: see to "
                        "the machine or the storage; nothing is lost: --resume goes on"
                    )


def run(scheduler: StudyScheduler, dispatcher: Dispatcher) -> None:
    """Run all trials of a study that are left to run.

    Raises:
        BadInput: no host, or no gang, could be started, or processes hung too often.
        StorageFault: a trial's report names a storage fault.
        OSError: what the study is to remember cannot be written.
    """
    # Tune's logs, one folder for each trial, and its tables only repeat what the journal has.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # The driver handles interruptions: --resume continues the trials that were running.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Ray Tune would copy the driver's credentials into the environment of the clients, and with it
    # into their command lines and a log. Clients speak to no store; hosts have their nodes' own.
    copied = class_cache.ENV_VARS_TO_PROPAGATE
    copied.difference_update([name for name in copied if name.startswith("AWS_")])
    # A trial's error is its outcome, shown with the trial and not as a traceback of Tune's.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    searcher = TuneSearcher(scheduler, dispatcher)
    with scratch.folder("tune") as folder:
        tuner = tune.Tuner(
            tune.with_resources(TrialClient, {"memory": CLIENT_BYTES}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=TuneScheduler(searcher),
                num_samples=-1,
                max_concurrent_trials=dispatcher.concurrency,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=str(folder),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                # Trials save their own checkpoints in the study's folder: see
                # study.worker.resident_trials.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[Caretaker(searcher), NoProgress()],
            ),
        )
        try:
            tuner.fit()
        except Exception:  # Tune wraps what it is stopped by
            if searcher.stopped:
                raise searcher.stopped from None
            raise
