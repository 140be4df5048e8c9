"""A study from its settings to its answer: checks, plan, search, confirmation, results."""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import importlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from search_spaces.declare import Space
from study import allowance, faults, limits, objectives, protocol, reading, runs
from study.allowance import Purse
from study.place import Place, look, open_lanes, placed, placements, reach, start
from study.settings import FILE, Settings, agree, open_folder, precision
from study.storage import Mirror
from study.ui import ARTIFACTS
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.lanes import Lanes
    from study.placement import Infeasible
    from study.placements import Placements
    from study.planned import Plan
    from study.survey import Survey
    from study.template import Template
    from study.tracking import Tracking
    from trainables.data.dataset import Dataset


def show_plan(settings: Settings, space: Space, place: Place, console: Console) -> None:
    """Print what a study would do, and where; nothing is written."""
    from study.template import Template

    _check_engine(settings)
    reach(place.address)
    computing = _computing(settings, place)
    with closing(Template(computing)) as template:
        data = reading.read(settings)
        devices, arithmetic = look(computing, place, template, data.dataset, starting=False)
        survey, where, nowhere = placed(
            settings, space, place, template, devices, arithmetic, console.print, starting=False
        )
        _plan(
            settings,
            space,
            place.name,
            data,
            survey,
            where,
            nowhere,
            precision=arithmetic.precision,
            concurrency=where.concurrency(devices),
        ).show(console)


def run(settings: Settings, space: Space, place: Place, console: Console) -> Path:
    """Run a study, or go on with it, and show what it found; its folder.

    Raises:
        BadInput: something that the user gave cannot be, and no trial has been run then; or the
            place fails (``study.faults``), and the study can be gone on with when it is mended.
    """

    def then() -> str:
        begun = (place.storage / place.name / FILE).is_file()
        return f"--resume {place.name} goes on" if begun else ""

    began = time.monotonic()
    with faults.told(place.storage, then), ExitStack() as stack:
        # What cannot be is refused before anything is written or started.
        agree(place.storage, place.name, settings, space)
        runs.check(place.tracking_uri)
        reach(place.address)
        _check_engine(settings)
        placements(settings, space, place, places=1, cuda=False)
        mirror = None
        if place.store:
            mirror = stack.enter_context(Mirror(place.store, place.name, say=console.print))
        return _connected(settings, space, place, mirror, console, began)


def _connected(
    settings: Settings,
    space: Space,
    place: Place,
    mirror: Mirror | None,
    console: Console,
    began: float,
) -> Path:
    from study.template import Template

    computing = _computing(settings, place)
    # Side by side: what loads the model, the data here, Ray with hosts that wait for both, MLflow.
    with (
        closing(Template(computing)) as template,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        data = reading.read(settings)
        pool.submit(importlib.import_module, "study.tune")  # while Ray starts
        tracking_starts = pool.submit(_track, settings, place)
        devices, arithmetic = look(computing, place, template, data.dataset, starting=True)
        lanes = open_lanes(
            *(settings, space, place, devices, arithmetic, template.socket),
            # What Ray or torch says may have brackets, which are no markup.
            say=partial(console.print, markup=False, soft_wrap=True),
        )
        survey, lanes.placements, nowhere = placed(
            settings, space, place, template, devices, arithmetic, console.print, starting=True
        )
        if devices.predicting:
            start(place, lanes)
        plan = _plan(
            settings,
            space,
            place.name,
            data,
            survey,
            lanes.placements,
            nowhere,
            precision=arithmetic.precision,
            concurrency=lanes.concurrency,
        )
        with closing(tracking_starts.result()) as track:
            plan.show(console, place.storage / place.name)
            folder = open_folder(
                place.storage,
                place.name,
                settings,
                space,
                run=plan.placements,
                base=protocol.base(settings, plan),
            )
            plan.write(folder)
            with _only_one(folder):
                _run(
                    *(plan, settings, data.others, folder, mirror),
                    *(lanes, track, template, console, began),
                )
    return folder


def _run(
    plan: Plan,
    settings: Settings,
    others: Mapping[str, Dataset],
    folder: Path,
    mirror: Mirror | None,
    lanes: Lanes,
    track: Tracking,
    template: Template,
    console: Console,
    began: float,
) -> None:
    from study import cluster, tune
    from study.checkpoints import Tidy, sweep
    from study.conductor import Conductor, Observer, Rules
    from study.early import Early
    from study.ledger import Ledger
    from study.records import Kind
    from study.terminal import Progress, show_results

    rules = Rules(
        space=plan.space,
        budget=plan.budget,
        slots=plan.survey.slots,
        seed=settings.seed,
        confirm_seeds=settings.seeds,
        allocate=settings.allocate,
        objectives=objectives.parse(settings.objective),
        under=limits.parse(settings.under),
        untuned=lanes.placements.untuned is not None,
        base=hashlib.sha256(json.dumps(protocol.base(settings, plan)).encode()).hexdigest()[:12],
    )
    described = protocol.describe(settings, plan, others, folder)
    ledger = Ledger(folder, rules.objectives)
    lanes.placements.recall(ledger.records.values())
    track.begin(plan.question, described, ledger.records.values())
    questions = {split: len(asked) for split, asked in plan.dataset.splits().items()}
    tested = questions["test"] + sum(len(other.test) for other in others.values())
    purse = Purse(
        allowance.parse(settings.allowance),
        devices=lanes.devices,
        concurrency=lanes.concurrency,
        scored=1 + tested / questions["validation"],
        began=began,
    )
    with Progress(
        console, folder, settings.seeds, purse=purse, questions=questions["validation"]
    ) as progress:
        early = Early("study.results")
        observers: list[Observer] = [Tidy(folder), track, progress, early]
        if mirror:  # last: what the others write is there by then
            observers.append(mirror)
        conductor = Conductor(rules, ledger, observers, purse)
        progress.watch(conductor)
        early.conductor = conductor
        if not conductor.done:
            try:
                tune.run(conductor, lanes)
            except BaseException:
                cluster.drop(lanes.drop)
                raise
    leaving = cluster.leave(lanes)
    from study import export, report, results  # seconds to import: not before trials run

    confirmed = {record.spec.id for record in ledger.of_kind(Kind.CONFIRM)}
    sweep(folder, confirmed)
    if mirror:
        mirror.fetch(confirmed)
    searched = f"{len(ledger.of_kind(Kind.SEARCH))} trials"
    if ledger.cut_short:
        searched += f", ended in time for --budget {settings.timed}"
    found = results.collect(
        plan.name,
        folder,
        conductor,
        plan.dataset,
        others,
        described | {"search": searched},
        margin=settings.margin,
    )
    files = [results.write(folder, found), *report.write(folder, found)]
    track.finish(
        found["verdict"],
        results.metrics(found),
        files,
        export.small(found),
        partial(export.write_all, folder, template),
    )
    show_results(console, found)
    if track.error:
        console.print(f"MLflow lacks a part ({track.error}); --resume {plan.name} writes it")
    leaving.join()


def _computing(settings: Settings, place: Place) -> Settings:
    """The settings with the precision that the study began with, if it did."""
    return replace(settings, precision=precision(place.storage, place.name, settings))


def _check_engine(settings: Settings) -> None:
    """Have DeepSpeed look at a configuration of the user's. It takes seconds to import.

    Raises:
        BadInput: it does not take it.
    """
    given = settings.configuration()
    if given:
        from trainables.zero import check_configuration

        try:
            check_configuration(given)
        except BadInput as error:
            raise BadInput(f"--deepspeed {settings.deepspeed}: {error}") from None


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Refuse to run a study that another process is running on this machine."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(
                f"study {folder.name!r} is running already; give another --name"
            ) from None
        yield


def _track(settings: Settings, place: Place) -> Tracking:
    from study.runs import Runs
    from study.tracking import Tracking

    experiment, artifacts = Path(settings.space).stem, place.storage / ARTIFACTS
    found = Runs(place.tracking_uri, experiment=experiment, artifacts=artifacts)
    return Tracking(found, place.name)


def _plan(
    settings: Settings,
    space: Space,
    name: str,
    data: reading.Read,
    survey: Survey,
    where: Placements,
    nowhere: Mapping[str, Infeasible],
    *,
    precision: str,
    concurrency: int,
) -> Plan:
    from study.planned import Plan
    from trainables.data.scores import majority_baseline

    return Plan(
        name=name,
        question=space.question,
        space=replace(space, arms={arm: space.arms[arm] for arm in where.by_arm}),
        budget=settings.budget(space),
        seeds=settings.seeds,
        allocate=settings.allocate,
        allowance=settings.timed,
        survey=survey,
        dataset=data.dataset,
        audit=data.audit,
        majority=majority_baseline(data.dataset.train, data.dataset.test),
        deepspeed=settings.engine_name,
        precision=precision,
        concurrency=concurrency,
        placements=where.by_arm,
        untuned=where.untuned,
        corrections=where.corrections,
        nowhere=nowhere,
    )
