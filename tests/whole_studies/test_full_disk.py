"""A disk that fills up stops a study in one line, and no trial is lost: each writer on a small disk
that is really full. Whole studies are in ``test_end_to_end``, the journal in ``test_journal``."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from study import report
from study.analysis import results_file
from study.analysis.result_types import StudyResults
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.study_json import check_resumable, open_study
from study.planning.placement import uniform_placement
from study.reporting import page as report_page
from study.search.scheduler import StudyScheduler
from study.storage import faults
from study.storage.study_folder import RESULTS, StudyFolder
from study.tracking.mlflow_runs import MlflowRuns
from study.tracking.mlflow_store import default_uri
from study.tracking.mlflow_writer import MlflowWriter
from study.trials.record import Outcome
from study.trials.spec import Kind, TrialSpec
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, TrialReport
from study.worker.resident_trials import ResidentTrials
from tests.small_disk import Disk, disk
from tests.study import small
from tests.study.made_up import PROTOCOL, SPACE, play_all
from trainables.cache import arrays
from trainables.cache import folders as cache_folders
from trainables.errors import BadInput

ALONE = uniform_placement(devices=1, deepspeed="off", batch_size=small.BATCH, sharing=1, reason="")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Disk]:
    """It has two megabytes, all of them taken."""
    with disk(tmp_path / "small", "2m") as found:
        found.fill()
        yield found


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> HostConfig:
    return small.config(tmp_path_factory.mktemp("host"))


def asked(residents: ResidentTrials, trial: TrialSpec, heard: int = 0) -> TrialReport:
    """A trial's next report."""
    reply = Future[TrialReport]()
    order = AdvanceTrial(spec=trial, placement=ALONE, reported_examples=heard)
    residents.advance(order, reply)
    while not reply.done():
        residents.step()
    return reply.result()


def test_a_trial_that_cannot_be_saved_has_not_failed(hosted: HostConfig, full: Disk) -> None:
    residents = ResidentTrials(
        replace(hosted, study_folder=StudyFolder(storage=full.folder, name="study"))
    )
    trial = small.spec()
    full.fill(but=8)  # half a checkpoint fits
    told = asked(residents, trial)
    assert not told.done and not residents.here
    assert told.fault.startswith(f"no room is left in {full.folder} (")
    assert "a checkpoint of the trial takes about" in told.fault
    assert list(StudyFolder.from_path(full.folder / "study").checkpoints(trial.id).iterdir()) == []
    full.free()
    reports = [asked(residents, trial)]
    heard = reports[-1].rung.examples_seen
    full.fill()
    assert asked(residents, trial, heard).fault
    full.free()
    while not reports[-1].done:
        reports.append(asked(residents, trial, reports[-1].rung.examples_seen))
    assert small.losses(reports) == pytest.approx(
        small.losses(small.alone(hosted, trial)), rel=1e-6
    )


def test_nor_has_one_whose_answers_cannot_be_kept(hosted: HostConfig, full: Disk) -> None:
    residents = ResidentTrials(
        replace(hosted, study_folder=StudyFolder(storage=full.folder, name="study"))
    )
    untuned = replace(small.spec("frozen"), kind=Kind.UNTUNED, stops=())
    told = asked(residents, untuned)
    assert not told.done and told.fault.startswith("no room is left in")
    full.free()
    assert asked(residents, untuned).outcome == Outcome.COMPLETE


def test_a_study_that_cannot_begin_leaves_nothing(full: Disk) -> None:
    definition = StudyDefinition.parse(Settings(space="smoke"))
    one = StudyFolder(storage=full.folder, name="one")
    with pytest.raises(BadInput, match=r"cannot write to --storage .*: No space left on device"):
        check_resumable(one, definition)
    with pytest.raises(OSError) as caught:
        open_study(one, definition, run=definition.space.arms, base={})
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in full.folder.iterdir()] == ["filler"]
    full.free()
    open_study(one, definition, run=definition.space.arms, base={})


def test_ray_is_not_started_on_a_disk_that_is_full(full: Disk) -> None:
    with (
        pytest.raises(BadInput, match=r"no room .* make room, and give the same command again$"),
        faults.raised_as_bad_input(Path("/")),
    ):
        faults.check(full.folder)
    full.free()
    faults.check(full.folder)


def test_results_and_report_are_written_whole_or_not_at_all(
    found: StudyResults, full: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    study = full.folder / "one"
    study.mkdir()
    for write in (results_file.write, report_page.write):
        with pytest.raises(OSError, match="No space left"):
            write(study, found)
    assert list(study.iterdir()) == []
    full.free()
    results_file.write(study, found)
    full.fill(but=2)
    assert report.main(["one", "--storage", str(full.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: no room is left in {full.folder} (")
    assert line.endswith("; make room, and give the same command again")
    assert [path.name for path in study.iterdir()] == [RESULTS]


def test_a_full_cache_is_done_without(
    full: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_folders, "folders", lambda: [full.folder, tmp_path / "other"])

    def write(file: Any) -> None:
        file.write(bytes(4 * 2**18))

    # As if the room had gone after it was looked for.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 2**40))
    made = arrays.cached_array("features", "one", (2**18,), np.dtype(np.float32), write)
    assert made.shape == (2**18,) and (tmp_path / "other" / "features" / "one.npy").is_file()
    assert not list((full.folder / "features").glob("*.npy"))
    monkeypatch.setattr(cache_folders, "folders", lambda: [full.folder])
    with pytest.raises(arrays.NoCacheSpace, match="No space left on device"):
        arrays.cached_array("features", "one", (2**18,), np.dtype(np.float32), write)


def test_a_full_database_of_mlflow_ends_no_study(
    begin: Callable[..., StudyScheduler], full: Disk, capfd: pytest.CaptureFixture[str]
) -> None:
    full.free()

    def track() -> MlflowWriter:
        folder = full.folder
        runs = MlflowRuns(default_uri(folder), experiment="made up", artifacts=folder / "artifacts")
        return MlflowWriter(runs, "one")

    tracking = track()
    tracking.begin(SPACE, PROTOCOL, [])
    full.fill()
    capfd.readouterr()
    assert play_all(begin(tracking)).done
    tracking.finish("verdict", "models", "table", {}, [], [], lambda trials, folder: None)
    assert "database or disk is full" in tracking.error
    assert capfd.readouterr().err == ""
    full.free()
    again = track()
    again.begin(SPACE, PROTOCOL, begin().journal.records.values())
    again.finish("verdict", "models", "table", {}, [], [], lambda trials, folder: None)
    assert again.error == ""
    client = MlflowClient(default_uri(full.folder))
    experiment = client.get_experiment_by_name("made up")
    assert experiment is not None
    there = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(there) == 1 + len(begin().journal.records)
    assert {run.info.status for run in there} <= {"FINISHED", "KILLED"}
