"""Whatever a user gives wrongly is one line and exit code 2, and nothing is changed.

``refused.txt`` and ``refused_slowly.txt`` have a command (``$ module arguments``) and, below it,
the whole line that it prints. Commands run in a folder that ``world.py`` fills, ``{here}`` in the
lines. Those of ``study.launch`` have ``--dry-run``, so that one which is accepted by mistake runs
no study.
"""

from __future__ import annotations

import importlib
import io
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_input import world

FILES = Path(__file__).parent


def rows(file: str) -> list[tuple[str, str]]:
    """Commands of a file, each with its line."""
    lines = (FILES / file).read_text("utf-8").splitlines()
    assert len(lines) % 2 == 0 and all(line.startswith("$ ") for line in lines[::2])
    return [
        (command.removeprefix("$ "), said)
        for command, said in zip(lines[::2], lines[1::2], strict=True)
    ]


QUICK, SLOW = rows("refused.txt"), rows("refused_slowly.txt")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    world.build(folder)
    yield folder


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Path -> size and time of change, of every file and folder."""
    found, folders = {}, [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                stat = entry.stat(follow_symlinks=False)
                found[entry.path[len(str(folder)) + 1 :]] = (stat.st_size, stat.st_mtime_ns)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return found


@pytest.mark.parametrize(
    ("command", "said"),
    [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)],
)
def test_it_is_refused_in_one_line(
    command: str,
    said: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(here)
    module, *arguments = shlex.split(command)
    before = state(here)
    code = importlib.import_module(module).main(arguments)
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert printed.err.replace(str(here), "{here}") == f"{said}\n"
    assert state(here) == before


def test_there_are_rows_for_every_command() -> None:
    commands = {command.split()[0] for command, _ in QUICK}
    every = {f"study.{file.stem}" for file in (FILES.parents[1] / "study").glob("[a-z]*.py")}
    assert every - commands == {"study.workflow"}, "each command has its row in refused.txt"
    assert len(QUICK) + len(SLOW) >= 250


def test_a_command_whose_input_is_closed_is_refused_too(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service or ``nohup`` may close the standard input."""
    monkeypatch.setattr("sys.stdin", None)
    delete = importlib.import_module("study.delete")
    assert delete.main(["finished", "--storage", str(here / "studies")]) == 2
    assert "nobody can be asked" in capsys.readouterr().err


def test_who_interrupts_a_space_file_is_not_told_that_it_is_wrong(tmp_path: Path) -> None:
    space = tmp_path / "slow.py"
    space.write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    begun = subprocess.Popen(
        [sys.executable, "-m", "study.launch", "--dry-run", "--space", space],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=FILES.parents[1],
    )
    assert begun.stdout is not None and begun.stdout.readline() == "begun\n"
    begun.send_signal(signal.SIGTERM)
    assert begun.communicate(timeout=30) == ("", "interrupted\n")
    assert begun.returncode == 143
