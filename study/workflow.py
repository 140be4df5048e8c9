"""Runs a study from its definition to its answer: checks, plan, search, confirmation, results."""

from __future__ import annotations

import concurrent.futures
import importlib
import socket
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from study.config import checked_data
from study.config.checked_data import CheckedData
from study.config.definition import StudyDefinition
from study.config.deployment import Deployment, check_address
from study.config.study_json import check_place, check_resumable, open_study
from study.execution.start_up import (
    inspect_cluster,
    measure_and_place,
    open_dispatcher,
    start_workers,
)
from study.planning import provenance
from study.planning.arm_placements import uniform_placements
from study.planning.foretold_time import TimeLeft
from study.planning.study_plan import plan_study
from study.search.spending import SpendingTracker
from study.storage import faults
from study.storage.journal_reader import Session
from study.storage.mirror import StoreMirror
from study.storage.study_folder import PROTOCOL, REPORT, StudyFolder, this_driver
from study.tracking import mlflow_store
from study.tracking.mlflow_writer import open_tracking
from study.trials.callback import StudyCallback
from study.trials.text import count_text
from trainables.errors import BadInput
from trainables.training.blind import BLIND

if TYPE_CHECKING:
    from study.execution.dispatcher import Dispatcher
    from study.planning.study_plan import StudyPlan
    from study.search.journal import StudyJournal
    from study.search.scheduler import SearchRules, StudyScheduler
    from study.tracking.mlflow_writer import MlflowWriter
    from study.trials.record import TrialRecord
    from study.worker.hardware import Hardware
    from study.worker.zygote import Zygote


def show_plan(definition: StudyDefinition, deployment: Deployment, console: Console) -> None:
    """Print what a study would do, and where; write nothing."""
    from study.worker.zygote import Zygote

    mlflow_store.check(deployment.tracking_uri)
    check_address(deployment.address)
    definition.check_engine()
    check_place(deployment.study_folder)
    with closing(Zygote(definition)) as zygote:
        data = checked_data.read(definition)
        definition = definition.with_data(len(data.dataset.train))
        inspected = inspect_cluster(
            definition, deployment, zygote, data.dataset, console.print, starting=False
        )
        placed = measure_and_place(
            definition, deployment, inspected, zygote, console.print, starting=False
        )
        plan_study(
            deployment.study_folder.name,
            definition,
            data,
            placed,
            precision=inspected.hardware.precision,
            concurrency=placed.placements.concurrency(inspected.partition),
        ).show(console)


@dataclass(frozen=True, kw_only=True)
class EndedStudy:
    """What a study that has ended leaves for its user to look at."""

    report: Path
    """File of its report on this node."""
    view: str
    """Address of its view on an MLflow server, after the server's own."""
    has_winner: bool
    """Whether an arm was confirmed, so that there is a model to export."""


def run(definition: StudyDefinition, deployment: Deployment, console: Console) -> EndedStudy:
    """Run a study, or go on with it, and show what it found.

    Raises:
        BadInput: something that the user gave cannot be, and no trial has been run then; or a disk
            or a store fails (``study.storage.faults``), and the study goes on when it is mended.
    """

    began, storage = time.monotonic(), deployment.study_folder.local_storage
    then = partial(_advice, deployment.study_folder)
    with faults.raised_as_bad_input(storage, then), ExitStack() as opened:
        study = StudyRun(definition, deployment, console, opened, began)
        study.check()
        study.open()
        study.make_plan()
        study.open_folder()
        study.open_journal()
        study.run_trials()
        return study.answer()


def _advice(study_folder: StudyFolder) -> str:
    """What to do when a study has stopped by a fault that is mended; empty if it had not begun."""
    return f"--resume {study_folder.name} goes on" if study_folder.begun else ""


class StudyRun:
    """One study from its definition to its answer.

    Fields are what is open, methods are the steps. Each step is called once, in the order in which
    they stand here, and sets the fields whose docstrings name it.
    """

    mirror: StoreMirror | None
    """Copy of the study in an object store, if it lies in one; set by ``open``."""
    zygote: Zygote
    """Process that loads the model; set by ``open``."""
    data: CheckedData
    """Datasets of the study; set by ``open``."""
    dispatcher: Dispatcher
    """Hosts and gangs that train trials; set by ``make_plan``."""
    hardware: Hardware
    """Hardware on which trials run; set by ``make_plan``."""
    plan: StudyPlan
    """Everything that is decided before the first trial; set by ``make_plan``."""
    folder: Path
    """Folder of the study, which no other driver uses; set by ``open_folder``."""
    tracker: MlflowWriter
    """Writer of the study's runs in MLflow; set by ``open_folder``."""
    provenance: dict[str, Any]
    """How the study is done, as in ``results.json``; set by ``open_journal``."""
    rules: SearchRules
    """Everything besides results that decides which trials are run; set by ``open_journal``."""
    journal: StudyJournal
    """Trials, those of earlier sessions included; set by ``open_journal``."""
    scheduler: StudyScheduler
    """Scheduler of the search and the confirmation; set by ``run_trials``."""
    ran_trials: bool
    """Whether there were trials left to run in this session; set by ``run_trials``."""

    def __init__(
        self,
        definition: StudyDefinition,
        deployment: Deployment,
        console: Console,
        opened: ExitStack,
        began: float,
    ) -> None:
        """Take what was asked. ``opened`` closes what the steps open; ``began`` is the monotonic
        time at which this session began."""
        self.definition, self.deployment, self.console = definition, deployment, console
        self.opened, self.began = opened, began

    def check(self) -> None:
        """Refuse what cannot be, before anything is written or started."""
        mlflow_store.check(self.deployment.tracking_uri)
        check_address(self.deployment.address)
        self.definition.check_engine()
        uniform_placements(self.definition, self.deployment, trials_per_host=1, cuda=False)
        # Last, since it makes the storage folder.
        check_resumable(self.deployment.study_folder, self.definition)

    def open(self) -> None:
        """Begin to load and to open, at the same time: the zygote process loads the model, this
        process reads the data, and MLflow is opened."""
        from study.worker.zygote import Zygote

        deployment, enter = self.deployment, self.opened.enter_context
        self.mirror = None
        if deployment.study_folder.in_store:
            self.mirror = enter(StoreMirror(deployment.study_folder, say=self.console.print))
        self.zygote = enter(closing(Zygote(self.definition)))
        pool = enter(concurrent.futures.ThreadPoolExecutor(2))
        self.data = checked_data.read(self.definition)
        self.definition = self.definition.with_data(len(self.data.dataset.train))
        pool.submit(importlib.import_module, "study.execution.ray_tune")  # while Ray starts
        self._tracking_starts = pool.submit(open_tracking, self.definition.settings, deployment)

    def make_plan(self) -> None:
        """Start hosts, which wait for the model and the data, and decide where each arm runs."""
        from study.execution import lost_cluster

        definition, deployment = self.definition, self.deployment
        inspected = inspect_cluster(
            definition,
            deployment,
            self.zygote,
            self.data.dataset,
            self.console.print,
            starting=True,
        )
        lost_cluster.watch(
            own=deployment.address is None, then=partial(_advice, deployment.study_folder)
        )
        self.dispatcher = open_dispatcher(
            definition,
            deployment,
            inspected,
            self.zygote.socket,
            say=partial(self.console.print, soft_wrap=True),
        )
        placed = measure_and_place(
            definition, deployment, inspected, self.zygote, self.console.print, starting=True
        )
        self.dispatcher.placements = placed.placements
        self.hardware = inspected.hardware
        if inspected.partition.predicting:
            start_workers(deployment, self.dispatcher)
        self.plan = plan_study(
            deployment.study_folder.name,
            definition,
            self.data,
            placed,
            precision=inspected.hardware.precision,
            concurrency=self.dispatcher.concurrency,
            begun=time.monotonic() - self.began,
        )

    def open_folder(self) -> None:
        """Open the study's folder, if no other driver uses it, and show the plan."""
        study_folder = self.deployment.study_folder
        study_folder.path.mkdir(exist_ok=True)
        self.opened.enter_context(study_folder.only_driver())  # before anything in it is changed
        plan = self.plan
        self.tracker = self.opened.enter_context(closing(self._tracking_starts.result()))
        plan.show(self.console, study_folder.path)
        self.folder = open_study(
            study_folder, self.definition, run=plan.placements, base=provenance.base(plan)
        )
        plan.write(self.folder)

    def open_journal(self) -> None:
        """Open the study's journal and its run in MLflow, and learn from the trials in them."""
        from study.protocol import planned
        from study.search.journal import StudyJournal
        from study.search.scheduler import SearchRules

        plan, settings = self.plan, self.definition.settings
        self.rules = SearchRules(
            space=plan.space,
            budget=self.definition.budget,
            slots=plan.profile.slots,
            seed=settings.seed,
            confirm_seeds=settings.seeds,
            times_if_diverged=self.definition.times_if_diverged,
            times_if_collapsed=self.definition.times_if_collapsed,
            searches=settings.times_searched,
            splits=settings.splits,
            allocate=self.definition.allocate,
            tuned_to=self.definition.tuned_to,
            search=self.definition.search,
            stop=self.definition.stop,
            objectives=self.definition.objectives,
            limits=self.definition.limits,
            untuned=plan.untuned is not None,
            brief=plan.asks_briefly,
            base=provenance.digest(provenance.base(plan)),
        )
        self.provenance = provenance.describe(plan, self.folder)
        self.journal = StudyJournal(self.folder, self.rules.objectives)
        if digest := planned.fix(plan, self.folder, self.provenance, self.journal):
            self.provenance |= {planned.NOTED: digest}
            self.console.print(f"  protocol {digest} (sha256 of {self.folder / PROTOCOL})\n")
        self._score_again()
        self.journal.record_mlflow(self._mlflow)
        self.dispatcher.placements.recall(self.journal.records.values())
        self.tracker.begin(plan.space, self.provenance, self.journal.records.values())

    def _score_again(self) -> None:
        """Score earlier trials by the rules of this version, so that neither the search nor the
        answer mixes two versions."""
        from study.storage import answers

        if older := answers.scored_by_older_rules(self.journal.records.values()):
            if self.mirror:
                self.mirror.fetch_answers()
            answers.score_again(self.deployment.study_folder, older)

    def run_trials(self) -> None:
        """Run the trials of the search and of the confirmation that have no result yet."""
        from study.execution import cluster, ray_tune
        from study.search.scheduler import StudyScheduler
        from study.storage.checkpoints import CheckpointCleaner
        from study.tracking.progress import Progress

        questions = len(self.data.dataset.validation)
        tested = len(self.data.dataset.test) * (1 + len(BLIND)) + sum(
            len(o.test) for o in self.data.ood.values()
        )
        spending = SpendingTracker(
            self.definition.spending_limit,
            devices=self.dispatcher.devices,
            concurrency=self.dispatcher.concurrency,
            scored=1 + tested / questions,
            began=self.began,
        )
        with Progress(
            self.console,
            self.folder,
            spending=spending,
            time_left=TimeLeft(self.plan.forecast),
            questions=questions,
        ) as progress:
            cleaner, early = (
                CheckpointCleaner(self.deployment.study_folder),
                PreImporter("study.analysis.results"),
            )
            callbacks: list[StudyCallback] = [cleaner, self.tracker, progress, early]
            if self.mirror:  # last, so that it sees what the others have written
                callbacks.append(self.mirror)
            self.scheduler = StudyScheduler(self.rules, self.journal, callbacks, spending)
            progress.watch(self.scheduler)
            early.scheduler = self.scheduler
            self.ran_trials = not self.scheduler.done
            if self.ran_trials:
                self.journal.record_session(self._session(spending))
                try:
                    ray_tune.run(self.scheduler, self.dispatcher)
                except BaseException:  # an interruption too leaves no gang behind
                    cluster.drop(self.dispatcher.drop)
                    raise

    @property
    def _mlflow(self) -> str:
        """Address of the MLflow store, as it is noted."""
        return mlflow_store.noted(
            self.deployment.tracking_uri, self.deployment.study_folder.local_storage
        )

    @property
    def _used_hardware(self) -> dict[str, Any]:
        """What the study's last trials ran on, as in ``results.json``: this session's devices, or
        those that are noted there if it ran no trial."""
        from study.analysis import results_file

        if not self.ran_trials:
            # Not finished, or damaged: then it is written anew, with what is known.
            with suppress(BadInput):
                noted = results_file.read(self.deployment.study_folder).protocol.get("hardware")
                if noted is not None:
                    return dict(noted)
        return {
            "device": self.plan.profile.device,
            "devices": self.dispatcher.devices,
            "concurrency": self.dispatcher.concurrency,
            "names": list(self.hardware.names),
        }

    def _session(self, spending: SpendingTracker) -> Session:
        """This driver's run of the study, as ``study.status`` shows it."""
        return Session(
            began=time.time() - (time.monotonic() - self.began),
            seconds=self.journal.seconds,
            devices=spending.devices,
            concurrency=spending.concurrency,
            host=socket.gethostname(),
            driver=self.mirror.driver if self.mirror else this_driver(),
        )

    def answer(self) -> EndedStudy:
        """Leave the cluster, and make, write and show the study's answer."""
        from study.execution import cluster
        from study.reporting.terminal import show_results
        from study.storage.checkpoints import sweep
        from study.trials.spec import Kind

        leaving = cluster.leave(partial(self.dispatcher.give_back, all_idle=True))
        from study.analysis import results, results_file
        from study.protocol import kept
        from study.reporting import model_export, summary
        from study.reporting import page as report_page  # seconds to import: not before trials

        confirmed = {record.spec.id for record in self.journal.of_kind(Kind.CONFIRM)}
        sweep(self.deployment.study_folder, confirmed)
        if self.mirror:
            self.mirror.fetch(confirmed)
        searched = count_text(len(self.journal.of_kind(Kind.SEARCH)), "trial")
        if self.journal.cut_short:
            searched += f", {kept.IN_TIME} {self.definition.time_limit}"
        elif self.journal.tuned:
            most = f"{self.rules.tuned_to:g} point{'s' * (self.rules.tuned_to != 1)}"
            searched += f", {kept.TUNED} {most}"
        finished = results.FinishedTrials(
            space=self.rules.space,
            objectives=self.rules.objectives,
            records=list(self.journal.records.values()),
            best=self.scheduler.best(),
            searches=self.rules.searches,
            splits=self.data.splits,
            diverged_at=self.scheduler.diverged_at(),
            collapsed_at=self.scheduler.collapsed_at(),
            # Gains are of the loss alone.
            gains=None
            if self.rules.objectives or self.rules.limits
            else self.scheduler.gains.found(),
        )
        found = results.collect(
            self.plan.name,
            self.deployment.study_folder,
            finished,
            self.data.dataset,
            self.data.ood,
            self.provenance | {"search": searched, "hardware": self._used_hardware},
            margin=self.definition.settings.margin,
            measure=self.definition.settings.measure,
        )
        found = replace(found, mlflow=self._mlflow)
        files = [
            results_file.write(self.folder, found),
            *report_page.write(self.folder, found),
            *filter(Path.exists, [self.folder / PROTOCOL]),
        ]
        self.tracker.finish(
            summary.escaped(found.verdict),
            found.claim,
            summary.markdown(found),
            results.metrics(found),
            files,
            model_export.small_models(found),
            partial(model_export.write_all, self.deployment.study_folder, self.zygote.do),
        )
        show_results(self.console, found)
        self.console.print(f"protocol  {kept.check(self.folder, found).text}")
        if self.tracker.error:
            self.console.print(
                f"MLflow lacks a part ({self.tracker.error}); --resume {self.plan.name} writes it"
            )
        leaving.join()
        return EndedStudy(
            report=self.folder / REPORT, view=self.tracker.view, has_winner=bool(found.confirmed)
        )


class PreImporter(StudyCallback):
    """Callback that imports ``module`` when no more trials can begin. The import takes seconds,
    which pass while the last trials run."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.scheduler: StudyScheduler | None = None

    def started(self, record: TrialRecord) -> None:
        """Start the import if this was the last trial to begin."""
        if self.scheduler is not None and not self.scheduler.may_begin_more:
            threading.Thread(target=importlib.import_module, args=[self.module]).start()
