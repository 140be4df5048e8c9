"""Text that becomes part of a path: what leads out of a folder is refused."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from study.storage import answers
from study.storage.paths import (
    TAKEN,
    atomic_write,
    check_study_name,
    is_partial,
    partial_path,
    safe_join,
    was_left,
)
from study.storage.study_folder import StudyFolder
from trainables.errors import BadInput

BAD: list[Any] = [
    *("", ".", "..", "../x", "../../x", "a/b", "a/../../b", "/etc", "a\\..\\b"),
    *("a\0b", "a\nb", "\ud800", "x" * 256, None, 7),
]


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_what_is_no_name_of_a_file_is_refused(name: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot name a file in") as refused:
        safe_join(tmp_path, name)
    assert "\n" not in str(refused.value)
    with pytest.raises(BadInput):
        safe_join(tmp_path, "inside", name)


@pytest.mark.parametrize("name", ["lora", "LoRA+ (r=8)", "0123456789ab", "..x", "x..", "ein Arm é"])
def test_a_plain_name_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    assert safe_join(tmp_path, name, name) == tmp_path / name / name


def test_the_id_of_a_trial_is_a_name(tmp_path: Path) -> None:
    study, other = tmp_path / "study", tmp_path / "other" / "checkpoints" / "abc"
    other.mkdir(parents=True)
    with pytest.raises(BadInput, match="cannot name a file"):
        StudyFolder.from_path(study).checkpoints("../../other/checkpoints/abc")
    with pytest.raises(BadInput, match="cannot name a file"):
        answers.read(StudyFolder.from_path(study), "../../other", "test")


def test_a_study_takes_no_name_that_something_else_has(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    (tmp_path / "begun").mkdir()
    for name in ("new", "begun", "mlflow.db2"):
        check_study_name(tmp_path, name)
    for name in ("notes", *TAKEN, *map(str.upper, TAKEN)):
        with pytest.raises(BadInput, match=f"--name '{re.escape(name)}' cannot be a study's"):
            check_study_name(tmp_path, name)


def test_a_file_is_on_the_disk_before_it_has_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Or else a file that is new may be empty after the machine has failed: file systems write
    names before contents."""
    file, real, synced = tmp_path / "study.json", os.fsync, []

    def fsync(number: int) -> None:
        path = Path(f"/proc/self/fd/{number}").resolve()
        synced.append((path == tmp_path, file.exists(), path.is_file() and path.read_text()))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(file) as partial:
        partial.write_text("whole")
    assert synced == [(False, False, "whole"), (True, True, False)]
    assert file.read_text() == "whole"


def test_what_is_being_written_is_known_by_its_name() -> None:
    mine = partial_path(Path("x/results.json")).name
    assert is_partial(mine) and not was_left(mine), "this process lives"
    left = f"{mine.rpartition('-')[0]}-{10**8}"  # no process has so high a number
    assert is_partial(left) and was_left(left)
    for earlier in (".study.json.partial-1", f".driver.json.partial-{'0' * 32}"):
        assert is_partial(earlier) and not was_left(earlier), "its machine is not known"
    chance = f"{mine.rpartition('-')[0]}-{'0' * 32}"
    for other in ("results.json", "a.partial-1", ".a.partial-x", ".a/b.partial-1", chance):
        assert not is_partial(other) and not was_left(other)
