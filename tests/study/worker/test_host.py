"""A host without Ray: real trials of a small model, asked for as clients ask."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.planning.placement import uniform_placement
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome, TrialEnd, TrialRecord
from study.trials.spec import Kind, TrialSpec
from study.worker.host import Host
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, ForgetTrial, TrialReport
from tests.study.made_up import rules
from tests.trainables.conftest import SMALL, made_up
from tests.trainables.cut_short import cut
from trainables.training.regime import Regime
from trainables.training.trial import Trial
from trainables.workload import Workload, WorkloadConfig

STOPS = (8, 16, 24)
ALONE = uniform_placement(devices=1, deepspeed="off", batch_size=4, sharing=1, reason="")
Begin = Callable[..., Host]


@pytest.fixture(scope="module")
def workload() -> Workload:
    return made_up(SMALL["blip"]())


@pytest.fixture
def begin(workload: Workload, tmp_path: Path) -> Begin:
    """Starts a host in the test's folder, or another after it was lost."""

    def begin(places: int = 2, folder: Path = tmp_path) -> Host:
        config = HostConfig(
            workload=WorkloadConfig(),
            ood_workloads={},
            study_folder=StudyFolder.from_path(folder),
            regime=Regime(),
            trials_per_host=places,
        )
        return Host(config, workload)

    return begin


def spec(method: str = "layernorm", *, lr: float = 1e-2, seed: int = 0) -> TrialSpec:
    return TrialSpec(
        kind=Kind.SEARCH,
        arm=method,
        parameters={},
        recipe={s: {"method": method} for s in ("vision", "fusion", "decoder")},
        lr=lr,
        seed=seed,
        max_examples=STOPS[-1],
        batch_size=4,
        stops=STOPS,
        base="made up",
    )


async def ask(host: Host, trial: TrialSpec, heard: int = 0, suspect: bool = False) -> TrialReport:
    order = AdvanceTrial(spec=trial, placement=ALONE, reported_examples=heard, suspect=suspect)
    return await asyncio.wrap_future(host.advance(order))


async def play(host: Host, trial: TrialSpec, suspect: bool = False) -> list[TrialReport]:
    """All its reports."""
    order, reports = AdvanceTrial(spec=trial, placement=ALONE, suspect=suspect), list[TrialReport]()
    while not (reports and reports[-1].done):
        reports.append(await asyncio.wrap_future(host.advance(order)))
        order = order.after(reports[-1])
    return reports


def alone(workload: Workload, trial: TrialSpec) -> list[float]:
    """Its validation losses without a host."""
    running, losses = Trial(workload, trial.config(Regime())), []
    for stop in trial.stops:
        running.train(stop)
        losses.append(running.validation_loss())
    return losses


def losses(reports: list[TrialReport]) -> list[float]:
    return [report.rung.validation_loss for report in reports if report.rung]


def test_trials_side_by_side_have_the_losses_that_they_have_alone(
    begin: Begin, workload: Workload
) -> None:
    trials = [spec(), spec("full", lr=1e-3), spec("layernorm", seed=1)]

    async def all_at_once() -> list[Any]:
        host = begin(places=3)
        return await asyncio.gather(*(play(host, trial) for trial in trials))

    for trial, reports in zip(trials, asyncio.run(all_at_once()), strict=True):
        assert losses(reports) == pytest.approx(alone(workload, trial), rel=1e-4)
        assert reports[-1].outcome == Outcome.COMPLETE
        assert 0 <= reports[-1].scores["validation.overall"] <= 100
        costs = [report.costs for report in reports]
        assert sorted(cost["seconds"] for cost in costs) == [cost["seconds"] for cost in costs]
        assert costs[-1]["peak_memory_gib"] > 0 and costs[-1]["trained_parameters"] > 0


def test_a_trial_that_diverges_or_fails_leaves_its_neighbour_alone(
    begin: Begin, workload: Workload
) -> None:
    async def beside() -> list[Any]:
        host = begin(places=3)
        return await asyncio.gather(
            play(host, spec(lr=1e30)), play(host, spec("no such method")), play(host, spec())
        )

    diverged, failed, neighbour = asyncio.run(beside())
    assert diverged[-1].outcome == Outcome.DIVERGED
    assert failed[-1].outcome == Outcome.FAILED and "no such method" in failed[-1].error
    assert losses(neighbour) == pytest.approx(alone(workload, spec()), rel=1e-4)


def test_an_error_of_a_shared_pass_is_told_and_changes_no_number(
    begin: Begin, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, trials = begin(places=2), [spec(seed=seed) for seed in (1, 2)]

    def broken(residents: Any) -> list[float]:
        raise RuntimeError("the pass is broken")

    monkeypatch.setattr(host.residents.group._pack, "backward", broken)

    async def both() -> list[Any]:
        return await asyncio.gather(*(play(host, trial) for trial in trials))

    for trial, reports in zip(trials, asyncio.run(both()), strict=True):
        assert losses(reports) == pytest.approx(alone(workload, trial), rel=1e-4)
        assert reports[-1].outcome == Outcome.COMPLETE
        assert reports[-1].remark == "steps alone: RuntimeError: the pass is broken"


def test_features_for_which_there_is_no_room_are_told_of(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    half = replace(spec(), recipe=spec().recipe | {"vision": {"method": "frozen"}})
    reports = asyncio.run(play(begin(), half))
    assert reports[-1].outcome == Outcome.COMPLETE
    assert "GiB) can't be kept in" in reports[-1].remark


def test_a_report_that_nobody_heard_is_told_again(begin: Begin) -> None:
    async def unheard() -> tuple[TrialReport, ...]:
        host = begin()
        told = await ask(host, spec(), heard=0)
        again = await ask(host, spec(), heard=0)
        other = await ask(begin(), spec(), heard=0)
        return told, again, other, await ask(host, spec(), heard=STOPS[0])

    told, again, other, after = asyncio.run(unheard())
    assert told.rung and after.rung
    rungs = [report.rung and replace(report.rung, costs={}) for report in (told, again, other)]
    assert rungs == [rungs[0]] * 3
    assert after.rung.examples_seen == STOPS[1]
    assert after.rung.seconds > told.rung.seconds


def test_a_lost_hosts_trial_goes_on_elsewhere_as_if_nothing_had_happened(
    begin: Begin, workload: Workload
) -> None:
    async def moved() -> list[Any]:
        first = await ask(begin(), spec(), heard=0)
        host = begin()
        second = await ask(host, spec(), heard=STOPS[0], suspect=True)
        return [first, second, await ask(host, spec(), heard=STOPS[1])]

    assert losses(asyncio.run(moved())) == pytest.approx(alone(workload, spec()), rel=1e-4)


def test_a_lost_checkpoint_costs_a_trial_of_a_study_nothing_but_time(
    begin: Begin, tmp_path: Path
) -> None:
    """The study was killed after a trial's second rung; what was saved there is cut short. Its
    journal has that rung, and the trial reports it, and the one before, once more."""
    few = replace(rules(trials=1).budget, max_examples=24, reduction=2, batch_size=4)
    given = replace(rules(), budget=few, slots=("vision", "fusion", "decoder"))

    async def go_on(folder: Path, most: int) -> TrialRecord:
        folder.mkdir(exist_ok=True)
        scheduler, host = StudyScheduler(given, StudyJournal(folder)), begin(folder=folder)
        trial = scheduler.next()
        assert trial is not None
        record = scheduler.journal.records[trial.id]
        heard = record.examples_seen
        for _ in range(most):
            report = await ask(host, trial, heard)
            if report.rung:
                heard = report.rung.examples_seen
                assert scheduler.reported(trial.id, report.rung)
            if report.outcome:
                costs, scores, remark = report.costs, report.scores, report.remark
                end = TrialEnd(outcome=report.outcome, costs=costs, scores=scores, remark=remark)
                scheduler.ended(trial.id, end)
                break
        return record

    whole = asyncio.run(go_on(tmp_path / "whole", 9))
    assert whole.outcome is Outcome.COMPLETE and len(whole.rungs) == 3 and not whole.remark
    killed = asyncio.run(go_on(tmp_path / "killed", 2))
    (last,) = StudyFolder.from_path(tmp_path / "killed").checkpoints(killed.spec.id).iterdir()
    assert int(last.name) == killed.examples_seen == whole.rungs[1].examples_seen
    for file in sorted(last.iterdir()):
        shutil.copytree(tmp_path / "killed", again := tmp_path / file.name)
        cut(again / file.relative_to(tmp_path / "killed"), "in half")
        found = asyncio.run(go_on(again, 9))
        assert found.outcome is Outcome.COMPLETE, (file.name, found.error)
        assert [(r.examples_seen, r.validation_loss, r.train_loss) for r in found.rungs] == [
            (r.examples_seen, r.validation_loss, r.train_loss) for r in whole.rungs
        ]
        assert found.scores == pytest.approx(whole.scores, abs=0, nan_ok=True)
        assert found.remark.startswith("what was saved at 12 examples was not whole"), file.name


def test_a_suspect_trains_alone_up_to_its_next_report(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], bool]] = []
    host, suspect, others = begin(places=3), spec(seed=9), [spec(seed=1), spec(seed=2)]
    step = host.residents.step

    def watched() -> None:
        suspects = any(host.residents.here[key].order.suspect for key in host.residents.training)
        seen.append((set(host.residents.training), suspects))
        step()

    monkeypatch.setattr(host.residents, "step", watched)

    async def beside() -> None:
        await asyncio.gather(
            play(host, suspect, suspect=True), *(play(host, other) for other in others)
        )

    asyncio.run(beside())
    assert [training for training, suspects in seen if suspects] == [{suspect.id}] * 2
    assert any(len(training) > 1 for training, _ in seen)


def test_trials_beyond_the_places_wait_for_one(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, most = begin(places=2), 0
    enter = host.residents.group.enter

    def counted(*arguments: Any, **named: Any) -> Trial:
        nonlocal most
        trial = enter(*arguments, **named)
        most = max(
            most, sum(resident.trial is not None for resident in host.residents.here.values()) + 1
        )
        return trial

    monkeypatch.setattr(host.residents.group, "enter", counted)

    async def crowd() -> list[Any]:
        trials = [spec(seed=seed) for seed in range(4)]
        return await asyncio.gather(*(play(host, trial) for trial in trials))

    assert all(r[-1].outcome == Outcome.COMPLETE for r in asyncio.run(crowd()))
    assert most == 2
    assert not host.residents.here


def test_a_trial_that_was_stopped_gives_its_place_to_the_next(begin: Begin) -> None:
    async def stopped() -> list[Any]:
        host = begin(places=1)
        await ask(host, spec())
        waits = asyncio.create_task(play(host, spec(seed=1)))
        await asyncio.sleep(0.1)
        assert not waits.done()
        host.forget(ForgetTrial(trial_id=spec().id))
        return await waits

    assert asyncio.run(stopped())[-1].outcome == Outcome.COMPLETE


def test_the_untuned_model_only_answers(begin: Begin, tmp_path: Path) -> None:
    untuned = TrialSpec(
        **{
            **spec("frozen").plain(),
            "kind": Kind.UNTUNED,
            "stops": (),
        }
    )
    (report,) = asyncio.run(play(begin(), untuned))
    assert report.outcome == Outcome.COMPLETE and report.rung is None
    assert {"validation.overall", "test.overall"} <= set(report.scores)
    assert not StudyFolder.from_path(tmp_path).checkpoints(untuned.id).exists()
