"""Runs a study from its settings to its answer: checks, plan, search, confirmation, results."""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib
import json
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from search_spaces.declare import Space
from study.config import checked_data, goals, spending_limit
from study.config.definition import check_engine
from study.config.deployment import Deployment, check_address
from study.config.settings import Settings
from study.config.study_json import check_resumable, open_study, precision
from study.execution.start_up import (
    inspect_cluster,
    open_dispatcher,
    place_arms,
    start,
    uniform_placements,
)
from study.planning import provenance
from study.planning.study_plan import plan_study
from study.search.spending import SpendingTracker
from study.storage import faults
from study.storage.mirror import StoreMirror
from study.storage.study_folder import SETTINGS, only_driver
from study.tracking import mlflow_store
from study.tracking.mlflow_writer import open_tracking
from study.trials.callback import StudyCallback

if TYPE_CHECKING:
    from study.execution.dispatcher import Dispatcher
    from study.planning.study_plan import StudyPlan
    from study.search.scheduler import StudyScheduler
    from study.tracking.mlflow_writer import MlflowWriter
    from study.trials.record import TrialRecord
    from study.worker.zygote import Zygote
    from trainables.data.common.dataset import Dataset


class Early(StudyCallback):
    """Imports ``module`` when no more trials can begin. The import takes seconds, which pass while
    the last trials run."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.scheduler: StudyScheduler | None = None

    def started(self, record: TrialRecord) -> None:
        """Start the import if this was the last trial to begin."""
        if self.scheduler is not None and not self.scheduler.more:
            threading.Thread(target=importlib.import_module, args=[self.module]).start()


def show_plan(settings: Settings, space: Space, place: Deployment, console: Console) -> None:
    """Print what a study would do, and where; write nothing."""
    from study.worker.zygote import Zygote

    check_engine(settings)
    check_address(place.address)
    computing = _computing(settings, place)
    with closing(Zygote(computing)) as zygote:
        data = checked_data.read(settings)
        devices, hardware = inspect_cluster(computing, place, zygote, data.dataset, starting=False)
        profile, where, nowhere = place_arms(
            settings, space, place, zygote, devices, hardware, console.print, starting=False
        )
        plan_study(
            settings,
            space,
            place.name,
            data,
            profile,
            where,
            nowhere,
            precision=hardware.precision,
            concurrency=where.concurrency(devices),
        ).show(console)


def run(settings: Settings, space: Space, place: Deployment, console: Console) -> Path:
    """Run a study, or go on with it, and show what it found. Return its folder.

    Raises:
        BadInput: something that the user gave cannot be, and no trial has been run then; or the
            place fails (``study.storage.faults``), and the study can be gone on with when it is
            mended.
    """

    def then() -> str:
        begun = (place.storage / place.name / SETTINGS).is_file()
        return f"--resume {place.name} goes on" if begun else ""

    began = time.monotonic()
    with faults.told(place.storage, then), ExitStack() as stack:
        # What cannot be is refused before anything is written or started.
        check_resumable(place.storage, place.name, settings, space)
        mlflow_store.check(place.tracking_uri)
        check_address(place.address)
        check_engine(settings)
        uniform_placements(settings, space, place, trials_per_host=1, cuda=False)
        mirror = None
        if place.store:
            mirror = stack.enter_context(StoreMirror(place.store, place.name, say=console.print))
        return _connected(settings, space, place, mirror, console, began)


def _connected(
    settings: Settings,
    space: Space,
    place: Deployment,
    mirror: StoreMirror | None,
    console: Console,
    began: float,
) -> Path:
    from study.worker.zygote import Zygote

    computing = _computing(settings, place)
    # At the same time: the zygote process loads the model, this process reads the data, Ray starts
    # hosts that wait for both, and MLflow is opened.
    with (
        closing(Zygote(computing)) as zygote,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        data = checked_data.read(settings)
        pool.submit(importlib.import_module, "study.execution.ray_tune")  # while Ray starts
        tracking_starts = pool.submit(open_tracking, settings, place)
        devices, hardware = inspect_cluster(computing, place, zygote, data.dataset, starting=True)
        dispatcher = open_dispatcher(
            *(settings, space, place, devices, hardware, zygote.socket),
            # What Ray or torch says may have brackets, which are no markup.
            say=partial(console.print, markup=False, soft_wrap=True),
        )
        profile, dispatcher.placements, nowhere = place_arms(
            settings, space, place, zygote, devices, hardware, console.print, starting=True
        )
        if devices.predicting:
            start(place, dispatcher)
        plan = plan_study(
            settings,
            space,
            place.name,
            data,
            profile,
            dispatcher.placements,
            nowhere,
            precision=hardware.precision,
            concurrency=dispatcher.concurrency,
        )
        with closing(tracking_starts.result()) as track:
            plan.show(console, place.storage / place.name)
            folder = open_study(
                place.storage,
                place.name,
                settings,
                space,
                run=plan.placements,
                base=provenance.base(settings, plan),
            )
            plan.write(folder)
            with only_driver(folder):
                _run(
                    *(plan, settings, data.others, folder, mirror),
                    *(dispatcher, track, zygote, console, began),
                )
    return folder


def _run(
    plan: StudyPlan,
    settings: Settings,
    others: Mapping[str, Dataset],
    folder: Path,
    mirror: StoreMirror | None,
    dispatcher: Dispatcher,
    track: MlflowWriter,
    zygote: Zygote,
    console: Console,
    began: float,
) -> None:
    from study.execution import cluster, ray_tune
    from study.reporting.terminal import show_results
    from study.search.journal import StudyJournal
    from study.search.scheduler import SearchRules, StudyScheduler
    from study.storage.checkpoints import CheckpointCleaner, sweep
    from study.tracking.progress import Progress
    from study.trials.spec import Kind

    rules = SearchRules(
        space=plan.space,
        budget=plan.budget,
        slots=plan.profile.slots,
        seed=settings.seed,
        confirm_seeds=settings.seeds,
        allocate=settings.allocate,
        objectives=goals.parse_objectives(settings.objective),
        under=goals.parse_limits(settings.under),
        untuned=dispatcher.placements.untuned is not None,
        base=hashlib.sha256(json.dumps(provenance.base(settings, plan)).encode()).hexdigest()[:12],
    )
    described = provenance.describe(settings, plan, others, folder)
    journal = StudyJournal(folder, rules.objectives)
    dispatcher.placements.recall(journal.records.values())
    track.begin(plan.question, described, journal.records.values())
    questions = {split: len(asked) for split, asked in plan.dataset.splits().items()}
    tested = questions["test"] + sum(len(other.test) for other in others.values())
    spending = SpendingTracker(
        spending_limit.parse(settings.allowance),
        devices=dispatcher.devices,
        concurrency=dispatcher.concurrency,
        scored=1 + tested / questions["validation"],
        began=began,
    )
    with Progress(
        console, folder, settings.seeds, spending=spending, questions=questions["validation"]
    ) as progress:
        early = Early("study.analysis.results")
        callbacks: list[StudyCallback] = [CheckpointCleaner(folder), track, progress, early]
        if mirror:  # last, so that it sees what the others have written
            callbacks.append(mirror)
        scheduler = StudyScheduler(rules, journal, callbacks, spending)
        progress.watch(scheduler)
        early.scheduler = scheduler
        if not scheduler.done:
            try:
                ray_tune.run(scheduler, dispatcher)
            except BaseException:
                cluster.drop(dispatcher.drop)
                raise
    leaving = cluster.leave(partial(dispatcher.give_back, all_idle=True))
    from study.analysis import results, results_file
    from study.reporting import model_export
    from study.reporting import page as report_page  # seconds to import: not before trials

    confirmed = {record.spec.id for record in journal.of_kind(Kind.CONFIRM)}
    sweep(folder, confirmed)
    if mirror:
        mirror.fetch(confirmed)
    searched = f"{len(journal.of_kind(Kind.SEARCH))} trials"
    if journal.cut_short:
        searched += f", ended in time for --budget {settings.timed}"
    finished = results.FinishedTrials(
        space=rules.space,
        objectives=rules.objectives,
        records=[*journal.records.values()],
        best=scheduler.best(),
    )
    found = results.collect(
        plan.name,
        folder,
        finished,
        plan.dataset,
        others,
        described | {"search": searched},
        margin=settings.margin,
    )
    files = [results_file.write(folder, found), *report_page.write(folder, found)]
    track.finish(
        found["verdict"],
        results.metrics(found),
        files,
        model_export.small(found),
        partial(model_export.write_all, folder, zygote.do),
    )
    show_results(console, found)
    if track.error:
        console.print(f"MLflow lacks a part ({track.error}); --resume {plan.name} writes it")
    leaving.join()


def _computing(settings: Settings, place: Deployment) -> Settings:
    """The settings, with the precision that the study began with if it has begun."""
    return replace(settings, precision=precision(place.storage, place.name, settings))
