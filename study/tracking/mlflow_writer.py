"""Writes a study to MLflow while the study runs.

Runs are looked up before they are made (``study.tracking.mlflow_runs``), and metrics carry the time
at which they were reported, so a study that is resumed writes nothing twice. A separate thread
writes, off the study's critical path, and puts what happened within a second into as few requests
as possible. If the server fails, the study goes on, and resuming it writes what is missing.
MLflow's own monitor also writes the load of the driver's machine.
"""

from __future__ import annotations

import itertools
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.declare import Space
from study.config.deployment import Deployment
from study.config.settings import Settings
from study.storage import scratch
from study.storage.paths import safe_join
from study.storage.study_folder import REPORT
from study.tracking import mlflow_datasets, mlflow_views
from study.tracking.mlflow_runs import MlflowRuns, log_lr
from study.trials.callback import StudyCallback
from study.trials.record import Outcome, Rung, TrialRecord
from study.trials.spec import Kind
from trainables.secrecy import without_secrets

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

LONGEST_TAG = 8000
"""Characters of a tag, which MLflow cuts."""
CUT_VERDICT = " (The report has the rest.)"
CUT_TABLE = "The report has the other arms."
LONGEST_ERROR = 500
"""Letters of an error that are shown."""
GATHER_SECONDS = 1.0
"""Seconds for which events are gathered before they are written."""
GROWING = ("settings.seeds",)
"""Parameters of a study that may be others when it goes on. MLflow's never change, so the new value
is a tag."""
STATUS = {
    Outcome.COMPLETE: "FINISHED",
    Outcome.PRUNED: "KILLED",
    Outcome.DIVERGED: "FAILED",
    Outcome.OUT_OF_MEMORY: "FAILED",
    Outcome.FAILED: "FAILED",
}
"""Outcome of a trial -> status of its run."""


class MlflowWriter(StudyCallback):
    """Writes a study to MLflow, as a callback of the scheduler."""

    def __init__(self, runs: MlflowRuns, study: str) -> None:
        self.runs, self.study = runs, study
        self.parent_id = ""
        self.children = dict[str, str]()
        """Trial id -> id of its run."""
        self.whole: set[str] = set()
        """Ids of the trials that were written completely before a restart."""
        self.described: set[str] = set()
        """Ids of the trials whose parameters, which never change, were written before a restart."""
        self.written: dict[str, int] = {}
        """Trial id -> number of rungs that were written."""
        self.arms: Sequence[str] = ()
        """All arms of the space, by which arms have their colours."""
        self.colours: Mapping[str, str] = {}
        """Arm, and the untuned model -> colour of its runs."""
        self.last = 0.0
        """Time at which the last trial ended, in seconds since 1970. It is the time of the study's
        results, so that they are the same however often they are written."""
        self.error = ""
        """The first error of the writing, in one line; empty if there was none."""
        self._stopped = False
        """Whether writing has stopped: nobody answers."""
        self._inputs: Mapping[tuple[Kind, int], list[DatasetInput]] = {}
        self._monitor: Any = None
        self._events: queue.Queue[_TrialEvent | Callable[[], object] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def view(self) -> str:
        """Address of the study's view on an MLflow server, after the server's own."""
        return mlflow_views.address(self.runs.experiment_id, self.parent_id)

    def begin(
        self, space: Space, protocol: Mapping[str, Any], records: Iterable[TrialRecord]
    ) -> None:
        """Find or make the study's run, and write what is missing of earlier records.

        ``protocol`` is what ``study.planning.provenance.describe`` returns.
        """
        self.arms = space.declared
        self.colours = mlflow_views.run_colours(self.arms)
        self.parent_id = self.runs.begin_study(self.study, protocol["identity"])
        for trial, run in self.runs.trials(self.parent_id).items():
            self.children[trial] = run.info.run_id
            if run.data.params:
                self.described.add(trial)
            if run.info.status != "RUNNING":
                self.whole.add(trial)
        # MLflow's parameters never change; what changes if a study is resumed elsewhere is a tag.
        tagged = ("versions", "commit", "command", "begun", "identity", "not_run")
        changing = {name: protocol[name] for name in tagged if name in protocol}
        fixed = {name: value for name, value in protocol.items() if name not in changing}
        tags = {
            "question": space.question,
            "mlflow.source.name": "study.launch",
            "mlflow.source.git.commit": protocol["commit"],
        }
        changed = tags | _flat(changing)
        self._inputs = mlflow_datasets.study_inputs(protocol)

        def first() -> None:
            # A study of one seed may get more; the parameter stays what it began with.
            params, logged = _flat(fixed), self.runs.client.get_run(self.parent_id).data.params
            later = {
                name: str(params.pop(name))
                for name in GROWING
                if name in params and logged.get(name, str(params[name])) != str(params[name])
            }
            self.runs.log(self.parent_id, params=params, tags=changed | later)
            self.runs.client.log_inputs(self.parent_id, self._inputs[Kind.CONFIRM, 0])
            mlflow_views.prepare(self.runs, self.parent_id, self.study, space)
            self._monitor = _monitor(self.runs, self.parent_id)
            self._monitor.start()

        self._events.put(first)
        for record in records:
            self.last = max(self.last, record.ended_at or 0.0)
            if record.spec.id not in self.whole:
                self._events.put(_TrialEvent(record=record, ended=record.outcome is not None))

    def started(self, record: TrialRecord) -> None:
        """Make a child run for the trial."""
        self._events.put(_TrialEvent(record=record, ended=False))

    def reported(self, record: TrialRecord) -> None:
        """Write the losses of the trial's last rung."""
        self._events.put(_TrialEvent(record=record, ended=False))

    def ended(self, record: TrialRecord) -> None:
        """Write the trial's outcome, costs and scores."""
        self.last = max(self.last, record.ended_at or 0.0)
        self._events.put(_TrialEvent(record=record, ended=True))

    def finish(
        self,
        verdict: str,
        claim: str,
        table: str,
        metrics: Mapping[str, float],
        files: Iterable[Path],
        models: Sequence[str],
        write: Callable[[Sequence[str], Path], object],
    ) -> None:
        """Write the study's results, wait until everything is written, and stop.

        ``verdict``, a few sentences, and ``table`` are Markdown. ``claim`` says what the verdict is
        about. ``models`` are the ids of confirmed trials whose runs are to hold their models. Those
        that a run lacks are written by ``write``, each into a folder named after its trial.
        """

        def results() -> None:
            from mlflow.entities import Metric

            at = int(self.last * 1000)
            self.runs.log(self.parent_id, metrics=[Metric(k, v, at, 0) for k, v in metrics.items()])
            links = mlflow_views.links(self.runs, self.parent_id, REPORT)
            note = description(verdict, links, table)
            self.runs.client.set_tag(self.parent_id, "mlflow.note.content", note)
            self.runs.client.set_tag(self.parent_id, "claim", claim)
            for file in files:
                self.runs.client.log_artifact(self.parent_id, str(file))

        self._events.put(results)
        self._events.put(lambda: self.runs.client.set_terminated(self.parent_id, "FINISHED"))
        self._events.put(
            partial(mlflow_views.renew, self.runs, self.parent_id, self.study, self.arms)
        )
        self._events.put(lambda: self._models(models, write))
        self.close()

    def close(self) -> None:
        """Wait until everything is written, and stop."""
        self._events.put(None)
        self._thread.join()
        # Without a server the monitor tries for minutes; its thread ends with the process.
        if self._monitor is not None and not self._stopped:
            self._monitor.finish()

    # The methods below run in the writing thread.

    def _write(self) -> None:
        """Write events until there are no more to come, those of a trial together."""
        going_on = True
        while going_on:
            trials: dict[str, _TrialEvent] = {}
            for event in self._gathered():
                if isinstance(event, _TrialEvent):
                    known = trials.get(event.record.spec.id)
                    trials[event.record.spec.id] = event if known is None or event.ended else known
                    continue
                for trial in trials.values():
                    self._try(partial(self._trial, trial))
                trials = {}
                going_on = event is not None
                if event is not None:
                    self._try(event)
            for trial in trials.values():
                self._try(partial(self._trial, trial))

    def _gathered(self) -> Iterator[_TrialEvent | Callable[[], object] | None]:
        """Events to write, in order, of ``GATHER_SECONDS`` at a time; None comes last of all."""
        event = self._events.get()
        until = time.monotonic() + GATHER_SECONDS
        while True:
            yield event
            if event is None:
                return
            try:
                event = self._events.get(timeout=max(until - time.monotonic(), 0.0))
            except queue.Empty:
                return

    def _try(self, work: Callable[[], object]) -> None:
        """Run one piece of writing, unless writing has stopped. If it fails, writing stops, unless
        MLflow answers and refuses this piece alone."""
        if self._stopped:
            return  # MLflow's client has tried for minutes: the rest is written on resume
        try:
            work()
        except Exception as error:  # a lost server must not end a study that can be resumed
            self._stopped = getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE"
            line = without_secrets(f"{type(error).__name__}: {error}").splitlines()[0]
            self.error = self.error or line[:LONGEST_ERROR]

    def _trial(self, event: _TrialEvent) -> None:
        """Write what is missing of a trial, in one request."""
        from mlflow.entities import Metric

        from trainables.measures.common.scores import logged_name

        record, spec = event.record, event.record.spec
        parameters, tags, metrics = dict[str, Any](), dict[str, str](), list[Metric]()
        if spec.id not in self.children:
            self.children[spec.id] = self.runs.begin_trial(
                record, self.parent_id, self.study, self.colours[spec.arm]
            )
        run_id = self.children[spec.id]
        if spec.id not in self.written:  # or again after a restart, which does no harm
            self.runs.client.log_inputs(run_id, self._inputs[spec.kind, spec.split])
        if spec.id not in self.written and spec.id not in self.described:
            parameters = {
                "arm": spec.arm,
                **({} if spec.kind is Kind.UNTUNED else {"lr": spec.lr}),
                **(spec.trained_with if spec.kind is not Kind.UNTUNED else spec.training),
                **spec.parameters,
                **{f"recipe.{s}": _recipe(t) for s, t in spec.recipe.items()},
                "seed": spec.seed,
                "max_examples": spec.max_examples,
                "batch_size": spec.batch_size,
                **({"split": spec.split} if spec.split else {}),
            }
            parameters = {name: _six_digits(value) for name, value in parameters.items()}
            if spec.kind is not Kind.UNTUNED:
                metrics.append(log_lr(spec.lr, int(record.started_at * 1000)))
        reported = record.rungs[self.written.get(spec.id, 0) :]
        metrics += [metric for rung in reported for metric in _losses(rung)]
        ended = int((record.ended_at or 0.0) * 1000)
        if event.ended:
            assert record.outcome is not None
            scores = {logged_name(k): v for k, v in record.scores.items() if v == v}
            values = {**record.costs, **scores, "examples_seen": record.examples_seen}
            metrics += [Metric(k, v, ended, record.examples_seen) for k, v in values.items()]
            end = {"outcome": record.outcome, "error": record.error, "remark": record.remark}
            tags = {name: str(text) for name, text in end.items() if text} | record.ran
        self.runs.log(run_id, metrics=metrics, params=parameters, tags=tags)
        self.written[spec.id] = self.written.get(spec.id, 0) + len(reported)
        if event.ended and record.outcome is not None:
            self.runs.client.set_terminated(run_id, STATUS[record.outcome], ended)

    def _models(
        self, trials: Sequence[str], write: Callable[[Sequence[str], Path], object]
    ) -> None:
        """Add the models of confirmed trials to the artifacts of their runs."""
        lacking = [t for t in trials if not self.runs.holds_model(self.children[t])]
        if lacking:
            with scratch.folder("models") as folder:
                write(lacking, folder)
                for trial in lacking:
                    self.runs.log_model(self.children[trial], safe_join(folder, trial))


def description(verdict: str, links: str, table: str) -> str:
    """Description of a study's run, in Markdown, of at most ``LONGEST_TAG`` characters: the verdict
    in bold type, links to the report and the views, and the table. Where that is too long, whole
    sentences and rows are left out, and a line says so.

    The page folds a description: its end is seen by those who unfold it.
    """
    room = LONGEST_TAG - len(links) - len(CUT_VERDICT) - len(CUT_TABLE) - len("****\n\n\n\n\n\n")
    verdict = " ".join(verdict.split())
    sentences = re.split(r"(?<=[.!?]) ", verdict)
    said = _first_of(sentences, " ", room)
    rows = table.splitlines()
    shown = _first_of(rows, "\n", room - len(said))
    parts = [f"**{said}**" if said else "", links, shown]
    if said != verdict:
        parts[0] += CUT_VERDICT
    if shown != table:
        parts.append(CUT_TABLE)
    return "\n\n".join(part.strip() for part in parts if part)


def _first_of(parts: Sequence[str], between: str, room: int) -> str:
    """Join the first parts, as many as fit into ``room`` characters, by ``between``."""
    ends = itertools.accumulate(len(part) + len(between) for part in parts)
    return between.join(part for part, end in zip(parts, ends, strict=True) if end <= room)


@dataclass(frozen=True, kw_only=True)
class _TrialEvent:
    """An event of a trial that is to be written: its start, its rungs, or its end with them."""

    record: TrialRecord
    ended: bool


def _monitor(runs: MlflowRuns, run_id: str) -> Any:
    """MLflow's monitor of this machine, which writes every ten seconds; in a resumed study it
    continues its count of steps."""
    from mlflow.system_metrics import system_metrics_monitor

    # Its log says that it starts and ends, and that there is no GPU: nothing for the user.
    logging.getLogger(system_metrics_monitor.__name__).setLevel(logging.CRITICAL)
    return system_metrics_monitor.SystemMetricsMonitor(
        run_id, resume_logging=True, tracking_uri=runs.uri
    )


def _losses(rung: Rung) -> list[Metric]:
    """The losses of a rung as metrics."""
    from mlflow.entities import Metric

    reported = int(rung.reported_at * 1000)
    values = {"validation_loss": rung.validation_loss, "train_loss": rung.train_loss}
    return [Metric(k, v, reported, rung.examples_seen) for k, v in values.items()]


def _six_digits(value: Any) -> Any:
    """A parameter as MLflow's tables are to show it: of a float six digits."""
    return f"{value:.6g}" if isinstance(value, float) else value


def _recipe(tuning: Mapping[str, Any]) -> str:
    """A method with its settings, such as ``lora(rank=8)``."""
    settings = ", ".join(f"{k}={v}" for k, v in tuning.items() if k != "method")
    return f"{tuning['method']}({settings})" if settings else str(tuning["method"])


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def open_tracking(settings: Settings, deployment: Deployment) -> MlflowWriter:
    """A writer for the study. Its experiment is named after the file of the search space.

    Raises:
        BadInput: the MLflow store cannot be reached or written.
    """
    from study.tracking.mlflow_runs import runs_of_space

    runs = runs_of_space(deployment.tracking_uri, settings.space, deployment.study_folder)
    return MlflowWriter(runs, deployment.study_folder.name)
