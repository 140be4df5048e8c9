"""Journal of a study: every trial and what became of it, in Optuna's journal file on disk.

One append-only file is the only state. A study that is killed and started again reads it and goes
on. TPE learns from the same record that the report shows.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from study.config.goals import point
from study.search.sampler import TrialMemory
from study.storage.journal_reader import Session
from study.storage.study_folder import JOURNAL
from study.trials.record import Outcome, Rung, TrialEnd, TrialRecord
from study.trials.spec import Kind, TrialSpec
from trainables.cache import regular_file
from trainables.errors import BadInput, printable
from trainables.measures.common.scores import VERSION
from trainables.secrecy import without_secrets

# Optuna learns from trials that were pruned or diverged, but must not from those that failed for
# other reasons.
STATES = {
    Outcome.COMPLETE: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.OUT_OF_MEMORY: TrialState.FAIL,
    Outcome.FAILED: TrialState.FAIL,
}


class JournalFile(JournalFileBackend):
    """Optuna's journal file, written by one process only, so that no lock is taken.

    Each line reaches the file at once, so a killed process loses none. Lines reach the disk once
    per event, so a machine that fails loses the last event at most.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines behind the others; all of them, or none where the disk is full."""
        whole = os.path.getsize(self._file_path)
        try:
            with open(self._file_path, "ab") as file:
                file.write(b"".join(json.dumps(log).encode() + b"\n" for log in logs))
        except OSError:  # what follows would be glued to half a line
            with suppress(OSError):
                os.truncate(self._file_path, whole)
            raise

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Lines from that number on. Optuna would remember where each line begins; here only where
        the next one will."""
        yield from super().read_logs(log_number_from)
        begins = self._log_number_offset
        following = max(begins)
        self._log_number_offset = {0: 0, following: begins[following]}

    def flush(self) -> None:
        """Wait until the disk has everything."""
        with open(self._file_path, "ab") as file:
            os.fsync(file.fileno())


class StudyJournal:
    """The record of one study, in ``folder``. Two Optuna studies share its journal file:
    ``search``, which searchers learn from, and ``confirm``, which they must not see."""

    def __init__(self, folder: Path, objectives: tuple[str, ...] = ()) -> None:
        """Open the journal. ``objectives`` are costs that are minimised beside the loss; see
        ``study.config.goals``.

        Raises:
            BadInput: the journal is damaged.
        """
        # Optuna would log every trial that it starts; the study's own progress output says it
        # better.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = str(folder / JOURNAL)
        _mend(folder / JOURNAL)
        self._journal = JournalFile(path)
        with _reading(folder / JOURNAL):
            self._storage = storage = JournalStorage(self._journal)
            self.studies = {
                name: optuna.create_study(
                    study_name=name,
                    storage=storage,
                    load_if_exists=True,
                    directions=["minimize"] * (1 + len(costs)),
                )
                for name, costs in {"search": objectives, "confirm": ()}.items()
            }
        self.objectives = objectives
        self.records: dict[str, TrialRecord] = {}
        """Trial id -> record, in the order in which trials were started."""
        self._trials: dict[str, optuna.Trial] = {}
        """Trial id -> Optuna's handle, for trials that have not ended."""
        self.draws: Counter[str] = Counter()
        """Arm -> number of search trials drawn. It includes repeats, which earlier versions
        drew."""
        self.tried: Counter[str] = Counter()
        """Arm -> number of search trials, without repeats."""
        self.failed: Counter[str] = Counter()
        """Arm -> number of search trials that failed or ran out of memory."""
        self.memory = TrialMemory(1 + len(objectives))
        """Ended trials that the sampler learns from."""
        noted = self.studies["search"].user_attrs
        self.cut_short: bool = noted.get("cut_short", False)
        """Whether the search was ended before all its trials were drawn, for the spending limit."""
        self.tuned: bool = noted.get("tuned", False)
        """Whether the search has ended because no arm was expected to gain much more."""
        self.seconds: float = noted.get("seconds", 0.0)
        """Seconds that the study has run, as last recorded by ``record_seconds``."""
        self.protocol: str = noted.get("protocol", "")
        """Digest of the study's protocol; empty if there is none."""
        self._reported_at = 0.0
        """Time of the last report, in seconds since 1970."""
        with _reading(folder / JOURNAL):
            for study in self.studies.values():
                for trial in study.get_trials(deepcopy=False):
                    self._remember(study, trial)

    def study_of(self, kind: Kind) -> optuna.Study:
        """The Optuna study that holds trials of ``kind``."""
        return self.studies["search" if kind is Kind.SEARCH else "confirm"]

    def started(self, spec: TrialSpec, trial: optuna.Trial) -> TrialRecord:
        """Record that ``spec`` was drawn as Optuna's ``trial``."""
        record = TrialRecord(spec=spec, number=trial.number, started_at=time.time())
        trial.set_user_attr("begin", {"spec": spec.plain(), "started_at": record.started_at})
        self._journal.flush()
        self._trials[spec.id] = trial
        self._enter(record)
        return record

    def record_placement(self, trial_id: str, ran: Mapping[str, str]) -> TrialRecord:
        """Record a trial's placement (devices, engine, pieces of its batch), or add to it."""
        record = self.records[trial_id]
        known, record.ran = record.ran, {**record.ran, **ran}
        if record.ran != known:
            self._trials[trial_id].set_user_attr("ran", record.ran)
            self._journal.flush()
        return record

    def rung(self, trial_id: str, rung: Rung, *, level: int | None = None) -> TrialRecord:
        """Record a reported rung. A second report of the same rung, after a restart, is ignored.
        Recorded times never go back, whatever the clocks of hosts do: a study that goes on judges
        reports in the order of their times.

        ``level`` is the rung as TPE counts it, which compares how far trials got. Without it that
        is the number of examples, which differs between trials whose batches differ in size.
        """
        record = self.records[trial_id]
        if rung.examples_seen > record.examples_seen:
            self._reported_at = max(rung.reported_at, math.nextafter(self._reported_at, math.inf))
            rung = replace(rung, reported_at=self._reported_at)
            trial = self._trials[trial_id]
            if not (self.objectives and record.spec.kind is Kind.SEARCH):  # Optuna has no curves
                with warnings.catch_warnings():  # of several objectives
                    # Stopped between these two lines, a study that goes on reports it once more.
                    warnings.filterwarnings("ignore", "The reported value is ignored")
                    trial.report(
                        rung.validation_loss, rung.examples_seen if level is None else level
                    )
            trial.set_user_attr(f"rung:{rung.examples_seen}", asdict(rung))
            self._journal.flush()
            record.rungs.append(rung)
        return record

    def ended(self, trial_id: str, end: TrialEnd) -> TrialRecord:
        """Record the end of a trial, and tell Optuna."""
        record = self.records[trial_id]
        record.outcome, record.ended_at = end.outcome, time.time()
        record.costs, record.scores = {**record.rung_costs, **end.costs}, dict(end.scores)
        record.scoring = VERSION
        # They may quote a library, or data.
        record.error, record.remark = (
            printable(without_secrets(line)) for line in (end.error, end.remark)
        )
        written = {
            "outcome": record.outcome,
            "ended_at": record.ended_at,
            "costs": record.costs,
            "scores": record.scores,
            "scoring": VERSION,
            "error": record.error,
            "remark": record.remark,
        }
        trial = self._trials.pop(trial_id)
        trial.set_user_attr("end", written)
        self._told(record, trial)
        self._journal.flush()
        return record

    def record_seconds(self, seconds: float) -> None:
        """Record how long the study has run, all its sessions together."""
        self.seconds = seconds
        self.studies["search"].set_user_attr("seconds", seconds)

    def record_session(self, session: Session) -> None:
        """Record that a driver runs the study from now on. Until it is recorded again, this is the
        last session."""
        self.studies["search"].set_user_attr("session", asdict(session))

    def record_mlflow(self, address: str) -> None:
        """Record that this session writes to the MLflow store at ``address``, which is as
        ``JournalContent.mlflow`` has it."""
        search = self.studies["search"]
        noted: list[str] = search.user_attrs.get("mlflow", [])
        if noted[-1:] != [address]:
            search.set_user_attr("mlflow", [*(a for a in noted if a != address), address])
            self._journal.flush()

    def record_protocol(self, digest: str) -> None:
        """Record the digest of the study's protocol, before the first trial."""
        self.protocol = digest
        self.studies["search"].set_user_attr("protocol", digest)
        self._journal.flush()

    def end_search(self) -> None:
        """Record that the search ends now, for good."""
        self.cut_short = True
        self.studies["search"].set_user_attr("cut_short", True)
        self._journal.flush()

    def end_as_tuned(self) -> None:
        """Record that the search has ended, for good, since no arm is expected to gain much
        more."""
        self.tuned = True
        self.studies["search"].set_user_attr("tuned", True)
        self._journal.flush()

    @property
    def search_over(self) -> bool:
        """Whether the search has ended before all its trials were drawn."""
        return self.cut_short or self.tuned

    def running(self) -> list[FrozenTrial]:
        """Search trials that have begun and not ended."""
        return self.studies["search"].get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def of_kind(self, kind: Kind) -> list[TrialRecord]:
        """The records of one kind, oldest first."""
        return [record for record in self.records.values() if record.spec.kind is kind]

    def _remember(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        attributes = trial.user_attrs
        record = TrialRecord.from_attributes(attributes, trial.number)
        if record is None:
            if "repeated" in attributes:
                self.draws[trial.params["arm"]] += 1
            if trial.state is TrialState.RUNNING:  # killed between draw and record
                study.tell(trial.number, state=TrialState.FAIL)
            return
        if record.outcome is not None:
            if trial.state is TrialState.RUNNING:  # killed before Optuna was told
                self._told(record, optuna.Trial(study, trial._trial_id))
            else:
                if record.spec.kind is Kind.SEARCH:
                    self._learn(record, trial)
                trial.user_attrs = {}
        else:
            # Optuna gives no other handle of a trial that another process began.
            self._trials[record.spec.id] = optuna.Trial(study, trial._trial_id)
        self._enter(record)

    def _told(self, record: TrialRecord, trial: optuna.Trial) -> None:
        """Tell Optuna of a trial that has ended, and learn from it."""
        assert record.outcome is not None
        state, searched = STATES[record.outcome], record.spec.kind is Kind.SEARCH
        names = self.objectives if searched else ()
        whole = state is TrialState.COMPLETE
        values = list(point(record.loss, record.costs, names)) if whole else None
        told = self.study_of(record.spec.kind).tell(trial, values, state=state)
        # The record has what was noted of the trial, so that no copy is kept by Optuna, whose own
        # trial this is, nor by the memory.
        self._storage.get_trial(trial._trial_id).user_attrs = told.user_attrs = {}
        if searched:
            self._learn(record, told)

    def _learn(self, record: TrialRecord, trial: FrozenTrial) -> None:
        if record.outcome is Outcome.DIVERGED:  # however far it got, TPE ranks it last
            trial = copy.copy(trial)
            trial.intermediate_values = {}
        self.memory.add(trial)
        self.failed[record.spec.arm] += STATES[record.outcome or Outcome.FAILED] is TrialState.FAIL

    def _enter(self, record: TrialRecord) -> None:
        self.records[record.spec.id] = record
        self._reported_at = max(self._reported_at, *(r.reported_at for r in record.rungs), 0.0)
        if record.spec.kind is Kind.SEARCH:
            self.draws[record.spec.arm] += 1
            self.tried[record.spec.arm] += 1


@contextmanager
def _reading(journal: Path) -> Iterator[None]:
    """Context in which a journal is read, by Optuna too, which takes each line for what it wrote.

    Raises:
        BadInput: the journal is damaged.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # Optuna checks no line: one of another form raises nearly any
        raise BadInput(
            f"{journal} is damaged ({type(error).__name__}: {error}); give it back as it was"
        ) from None


def _mend(journal: Path) -> None:
    """Cut off a last line that a killed process left unfinished; the next would be added to it."""
    if journal.exists():
        content = regular_file.content(journal)
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(journal, whole)
