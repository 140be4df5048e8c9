"""Temporary folders: none stays after a process that was killed, and none of another is removed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.storage import scratch

KILLED = """
import os, signal, sys
from study.storage import scratch

with scratch.folder("killed") as made:
    print(made, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, for this process and those that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    tempfile.tempdir = None


def _age(folder: Path) -> None:
    """Let a folder look older than those that are left alone."""
    long_ago = folder.stat().st_mtime - 2 * scratch.YOUNG_SECONDS
    os.utime(folder, (long_ago, long_ago))


def test_a_folder_goes_with_its_block(temporary: Path) -> None:
    with scratch.folder("tune") as made:
        (made / "file").write_text("x")
        assert made.parent == temporary and made.stat().st_mode & 0o077 == 0
    assert not list(temporary.iterdir())


def test_the_folders_of_a_killed_process_go_with_the_next() -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    left = Path(killed.stdout.readline().strip())
    _age(left)
    with scratch.folder("alive"):
        assert left.is_dir(), "its process lives"
    killed.communicate("go\n")
    _age(left)
    with scratch.folder("next"):
        assert not left.exists()


def test_a_folder_of_another_is_left_alone(temporary: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / scratch.LOCK).touch()
    link = temporary / f"{scratch.PREFIX}x-1"
    link.symlink_to(outside)
    unmarked = temporary / f"{scratch.PREFIX}mine-1"
    unmarked.mkdir()
    young = temporary / f"{scratch.PREFIX}young-1"
    young.mkdir()
    (young / scratch.LOCK).touch()
    _age(outside)
    _age(unmarked)
    with scratch.folder("next"):
        assert outside.is_dir() and unmarked.is_dir() and young.is_dir()
    _age(young)
    with scratch.folder("next"):
        assert not young.exists() and unmarked.is_dir()


def test_a_socket_has_room_though_the_temporary_folder_has_a_long_path(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm makes such folders for its jobs."""
    with scratch.folder("trial") as made:
        assert made.parent == temporary, "other files lie where the user wants them"
    deep = temporary / ("x" * 90)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with scratch.folder("zygote") as made, socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(made / "socket"))
        assert made.parent == Path("/tmp")
    assert not made.exists()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert scratch.parent("ray") == Path("/tmp")
    monkeypatch.setenv("RAY_TMPDIR", "/short")
    assert scratch.parent("ray") == Path("/short")
    assert scratch.parent("trial") == deep
