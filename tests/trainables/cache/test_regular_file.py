"""A pipe in the place of a file is refused, and is not read for ever."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from study.protocol import planned
from study.search.journal import JOURNAL, StudyJournal
from study.storage.lease import LEASE, LeaseFolder
from study.storage.study_folder import LOCK, PROTOCOL, StudyFolder
from trainables.cache.regular_file import content
from trainables.training import checkpoint


def lock(folder: Path) -> object:
    with StudyFolder.from_path(folder).only_driver():
        return None


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("x", lambda folder: content(folder / "x")),
        (PROTOCOL, planned.digest),
        (JOURNAL, StudyJournal),
        (LEASE, lambda folder: LeaseFolder(folder).read(LEASE)),
        (LOCK, lock),
        (checkpoint.MANIFEST, checkpoint.weights),
        (checkpoint.WEIGHTS, checkpoint.weights),
    ],
)
def test_a_pipe_is_refused(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((OSError, ValueError), match="no regular file"):
        read(tmp_path)


def test_who_asks_for_the_driver_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    assert StudyFolder.from_path(tmp_path).driver is None
