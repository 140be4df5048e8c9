"""A folder whose file system has no locks, as an NFS without lockd: a lease stands for the lock."""

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from study.storage import lease
from study.storage.lease import LEASE
from study.storage.study_files import StudyFiles
from study.storage.study_folder import StudyFolder, this_driver
from trainables.errors import BadInput


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    def flock(*asked: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "TIMEOUT_SECONDS", 0.5)
    found = StudyFolder(storage=tmp_path, name="one")
    found.path.mkdir()
    return found


def test_a_study_has_one_driver_there_too(folder: StudyFolder) -> None:
    files, file = StudyFiles(study_folder=folder, versions={}), folder.path / LEASE
    with folder.only_driver():
        assert files.driver() == this_driver()
        first = file.read_bytes()
        time.sleep(0.3)
        assert file.read_bytes() != first, "it is renewed"
        with (
            pytest.raises(BadInput, match=r"^study 'one' is running already, on .*; stop it$"),
            folder.only_driver("stop it"),
        ):
            raise AssertionError
    assert not file.exists() and files.driver() is None


def test_the_lease_of_a_driver_that_was_killed_is_taken(folder: StudyFolder) -> None:
    (folder.path / LEASE).write_text(json.dumps({"driver": "node-7 x", "beat": 0}))
    with folder.only_driver():
        assert json.loads((folder.path / LEASE).read_text())["driver"] == this_driver()


def test_of_two_that_begin_at_once_one_goes_on(folder: StudyFolder) -> None:
    held = lease.Lease(lease.LeaseFolder(folder.path), "one")
    take = lease.Lease.take

    def and_another(self: lease.Lease) -> None:
        take(self)
        held.renew()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease.Lease, "take", and_another)
        patch.setattr(lease, "BEAT_SECONDS", 60.0)
        with pytest.raises(BadInput, match="is running already, on"), folder.only_driver():
            raise AssertionError
    assert held.taken_over_by() == "", "the lease is the other's, and stays"


def test_a_driver_whose_study_was_taken_over_is_told(folder: StudyFolder) -> None:
    ours, lost = lease.Lease(lease.LeaseFolder(folder.path), "one"), list[str]()
    with ours.held(lost.append):
        (folder.path / LEASE).write_text(json.dumps({"driver": "node-7 x", "beat": 0}))
        give_up = time.monotonic() + 10
        while not lost:
            assert time.monotonic() < give_up
            time.sleep(0.05)
    assert lost == ["node-7"]
    assert (folder.path / LEASE).exists()


def test_other_errors_are_no_sign_of_a_running_study(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*asked: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), folder.only_driver():
        raise AssertionError
