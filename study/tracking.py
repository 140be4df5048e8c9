"""Records a study in MLflow while it goes on: what is written when.

Runs are found before they are made (``study.runs``), and metrics carry the time at which they were
reported, so what was written already is not written twice when a study is resumed. A thread of its
own writes, off the study's critical path, what happened within a second in as few requests as there
can be; if the server fails in mid-study, the study goes on, and resuming it writes what is missing.
Beside it MLflow's own monitor writes what the driver's machine does.
"""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import inputs
from study.paths import below
from study.records import Kind, Outcome, Rung, TrialRecord
from study.runs import Runs
from trainables.secrecy import without_secrets

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

GATHER_SECONDS = 1.0
"""How long news is gathered before it is written."""
STATUS = {
    Outcome.COMPLETE: "FINISHED",
    Outcome.PRUNED: "KILLED",
    Outcome.DIVERGED: "FAILED",
    Outcome.OUT_OF_MEMORY: "FAILED",
    Outcome.FAILED: "FAILED",
}


class Tracking:
    """The study's pen for MLflow. An observer of the conductor."""

    def __init__(self, runs: Runs, study: str) -> None:
        self.runs, self.study = runs, study
        self.parent_id = ""
        self.children = dict[str, str]()
        """Trial -> its run."""
        self.whole: set[str] = set()
        """Trials of which all was written before a restart."""
        self.written: dict[str, int] = {}
        """Trial -> rungs that were written."""
        self.last = 0.0
        """When the last trial ended, in seconds since 1970: the time of the study's results, so
        that they are the same however often they are written."""
        self.error = ""
        """Why writing stopped, if it did."""
        self._inputs: Mapping[Kind, list[DatasetInput]] = {}
        self._monitor: Any = None
        self._news: queue.Queue[_News | Callable[[], object] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    def begin(
        self, question: str, protocol: Mapping[str, Any], records: Iterable[TrialRecord]
    ) -> None:
        """Find or make the study's run, and write what of earlier records is missing.

        ``protocol`` is what ``study.protocol`` describes.
        """
        self.parent_id = self.runs.begin_study(self.study, protocol["identity"])
        for trial, run in self.runs.trials(self.parent_id).items():
            self.children[trial] = run.info.run_id
            if run.info.status != "RUNNING":
                self.whole.add(trial)
        # MLflow's parameters can never change; what does when a study goes on elsewhere is a tag.
        tagged = ("versions", "commit", "command", "begun", "identity", "not_run")
        changing = {name: protocol[name] for name in tagged if name in protocol}
        fixed = {name: value for name, value in protocol.items() if name not in changing}
        tags = {
            "question": question,
            "mlflow.source.name": "study.launch",
            "mlflow.source.git.commit": protocol["commit"],
        }
        changed = tags | _flat(changing)
        self._inputs = inputs.of_study(protocol)

        def first() -> None:
            self.runs.log(self.parent_id, params=_flat(fixed), tags=changed)
            self.runs.client.log_inputs(self.parent_id, self._inputs[Kind.CONFIRM])
            self._monitor = _monitor(self.runs, self.parent_id)
            self._monitor.start()

        self._news.put(first)
        for record in records:
            self.last = max(self.last, record.ended_at or 0.0)
            if record.spec.id not in self.whole:
                self._news.put(_News(record=record, ended=record.outcome is not None))

    def started(self, record: TrialRecord) -> None:
        """A child run for the trial."""
        self._news.put(_News(record=record, ended=False))

    def reported(self, record: TrialRecord) -> None:
        """The losses of the last rung."""
        self._news.put(_News(record=record, ended=False))

    def ended(self, record: TrialRecord) -> None:
        """Outcome, costs and scores."""
        self.last = max(self.last, record.ended_at or 0.0)
        self._news.put(_News(record=record, ended=True))

    def finish(
        self,
        verdict: str,
        metrics: Mapping[str, float],
        files: Iterable[Path],
        models: Sequence[str],
        write: Callable[[Sequence[str], Path], object],
    ) -> None:
        """Write the study's results, wait until all is written, and stop.

        ``models`` are confirmed trials whose runs are to hold their models; of those that don't,
        ``write`` writes each into a folder of its name.
        """

        def results() -> None:
            from mlflow.entities import Metric

            at = int(self.last * 1000)
            self.runs.log(self.parent_id, metrics=[Metric(k, v, at, 0) for k, v in metrics.items()])
            self.runs.client.set_tag(self.parent_id, "mlflow.note.content", verdict)
            for file in files:
                self.runs.client.log_artifact(self.parent_id, str(file))

        self._news.put(results)
        self._news.put(lambda: self.runs.client.set_terminated(self.parent_id, "FINISHED"))
        self._news.put(lambda: self._models(models, write))
        self.close()

    def close(self) -> None:
        """Wait until all is written, and stop."""
        self._news.put(None)
        self._thread.join()
        # Without a server the monitor tries for minutes; its thread ends with the process.
        if self._monitor is not None and not self.error:
            self._monitor.finish()

    # What follows runs in the writing thread.

    def _write(self) -> None:
        going_on = True
        while going_on:
            trials: dict[str, _News] = {}
            for news in self._gathered():
                if isinstance(news, _News):
                    known = trials.get(news.record.spec.id)
                    trials[news.record.spec.id] = news if known is None or news.ended else known
                    continue
                for trial in trials.values():
                    self._try(partial(self._trial, trial))
                trials = {}
                going_on = news is not None
                if news is not None:
                    self._try(news)
            for trial in trials.values():
                self._try(partial(self._trial, trial))

    def _gathered(self) -> Iterator[_News | Callable[[], object] | None]:
        """What there is to write, in order, once a second; None is the last."""
        news = self._news.get()
        until = time.monotonic() + GATHER_SECONDS
        while True:
            yield news
            if news is None:
                return
            try:
                news = self._news.get(timeout=max(until - time.monotonic(), 0.0))
            except queue.Empty:
                return

    def _try(self, work: Callable[[], object]) -> None:
        if self.error:
            return  # MLflow's client has tried for minutes: the rest is written on resume
        try:
            work()
        except Exception as error:  # a lost server must not end a study that can be resumed
            self.error = without_secrets(f"{type(error).__name__}: {error}").splitlines()[0]

    def _trial(self, news: _News) -> None:
        """What is not written yet of a trial, in one request."""
        from mlflow.entities import Metric

        record, spec = news.record, news.record.spec
        parameters, tags = dict[str, Any](), dict[str, str]()
        if spec.id not in self.children:
            self.children[spec.id] = self.runs.begin_trial(record, self.parent_id)
        run_id = self.children[spec.id]
        if spec.id not in self.written:  # after a restart they may be there already: no harm
            self.runs.client.log_inputs(run_id, self._inputs[spec.kind])
            parameters = {
                "arm": spec.arm,
                "lr": spec.lr,
                **spec.parameters,
                **{f"recipe.{s}": _recipe(t) for s, t in spec.recipe.items()},
                "seed": spec.seed,
                "max_examples": spec.max_examples,
                "batch_size": spec.batch_size,
            }
        reported = record.rungs[self.written.get(spec.id, 0) :]
        metrics = [metric for rung in reported for metric in _losses(rung)]
        ended = int((record.ended_at or 0.0) * 1000)
        if news.ended:
            assert record.outcome is not None
            scores = {f"{k}_percent": v for k, v in record.scores.items() if v == v}
            values = {**record.costs, **scores, "examples_seen": record.examples_seen}
            metrics += [Metric(k, v, ended, record.examples_seen) for k, v in values.items()]
            said = {"outcome": record.outcome, "error": record.error, "remark": record.remark}
            tags = {name: str(text) for name, text in said.items() if text} | record.ran
        self.runs.log(run_id, metrics=metrics, params=parameters, tags=tags)
        self.written[spec.id] = self.written.get(spec.id, 0) + len(reported)
        if news.ended and record.outcome is not None:
            self.runs.client.set_terminated(run_id, STATUS[record.outcome], ended)

    def _models(
        self, trials: Sequence[str], write: Callable[[Sequence[str], Path], object]
    ) -> None:
        """The models of confirmed trials, as files of their runs."""
        lacking = [t for t in trials if not self.runs.holds_model(self.children[t])]
        if lacking:
            with tempfile.TemporaryDirectory(prefix="models-") as folder:
                write(lacking, Path(folder))
                for trial in lacking:
                    self.runs.log_model(self.children[trial], below(Path(folder), trial))


@dataclass(frozen=True, kw_only=True)
class _News:
    """Something of a trial is to be written: that it began, its rungs, or its end with them."""

    record: TrialRecord
    ended: bool


def _monitor(runs: Runs, run_id: str) -> Any:
    """MLflow's own, which writes every ten seconds; a study that goes on goes on with its steps."""
    from mlflow.system_metrics import system_metrics_monitor

    # It tells that it starts and ends, and that there is no GPU. What goes wrong, Tracking says.
    logging.getLogger(system_metrics_monitor.__name__).setLevel(logging.CRITICAL)
    return system_metrics_monitor.SystemMetricsMonitor(
        run_id, resume_logging=True, tracking_uri=runs.uri
    )


def _losses(rung: Rung) -> list[Metric]:
    from mlflow.entities import Metric

    reported = int(rung.reported_at * 1000)
    values = {"validation_loss": rung.validation_loss, "train_loss": rung.train_loss}
    return [Metric(k, v, reported, rung.examples_seen) for k, v in values.items()]


def _recipe(tuning: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in tuning.items() if k != "method")
    return f"{tuning['method']}({settings})" if settings else str(tuning["method"])


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
