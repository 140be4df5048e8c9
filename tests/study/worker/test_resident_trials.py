"""Trials on a device: who waits, who trains alone, and what is no trial's fault."""

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from study.planning.placement import uniform_placement
from study.storage.study_folder import StudyFolder
from study.worker.orders import AdvanceTrial, TrialReport
from study.worker.resident_trials import ResidentTrials
from tests.study import small
from tests.study.object_store import serve


def test_a_checkpoint_that_the_store_does_not_take_is_no_trials_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes while the trial trains; when it is back, the trial goes on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config, trial = small.config(tmp_path), small.spec()
    gone = StudyFolder(storage=f"s3://gone/{tmp_path.name}", name="study")
    one = uniform_placement(
        devices=1, deepspeed="off", batch_size=small.BATCH, sharing=1, reason=""
    )
    residents = ResidentTrials(replace(config, study_folder=gone))
    reply = Future[TrialReport]()
    with serve("gone") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        residents.advance(AdvanceTrial(spec=trial, placement=one), reply)
    while not reply.done():
        residents.step()
    told = reply.result()
    assert not told.done and not residents.here
    assert told.fault.startswith("the object store does not do what is asked of it (When ")
    assert "AWS Error" in told.fault and "\n" not in told.fault
