"""What is taken for a storage fault: what libraries raise on a disk that is really full."""

import errno
import os
import re
import resource
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy
import torch
from safetensors.torch import save_file

from study.storage.faults import StorageFault, describe_fault
from tests.small_disk import Disk, disk

SIZE = 300_000
"""Bytes of what does not fit."""


def plain(file: Path) -> None:
    file.write_bytes(bytes(SIZE))


def weights(file: Path) -> None:
    save_file({"a": torch.zeros(SIZE // 4)}, file)


def optimizer(file: Path) -> None:
    with file.open("wb") as opened:
        torch.save({"a": torch.zeros(SIZE // 4)}, opened)


def answers(file: Path) -> None:
    pq.write_table(pa.table({"a": [os.urandom(30).hex() for _ in range(SIZE // 60)]}), file)


def rows(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("create table t (a)")
    connection.execute("insert into t values (?)", ("a" * SIZE,))
    connection.commit()


def runs(file: Path) -> None:
    with sqlalchemy.create_engine(f"sqlite:///{file}").begin() as connection:
        connection.execute(sqlalchemy.text("create table t (a)"))
        connection.execute(sqlalchemy.text("insert into t values (:a)"), {"a": "a" * SIZE})


def wrapped(file: Path) -> None:
    try:
        plain(file)
    except OSError as error:
        raise RuntimeError("the trial could not be saved") from error


def temporary(file: Path) -> None:
    """No folder of temporary files takes any."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TMPDIR", "TEMP", "TMP"):
            patch.setenv(name, str(file.parent))
        patch.setattr(tempfile, "tempdir", None)
        patch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(file.parent)])
        tempfile.mkdtemp()


WRITERS = [plain, weights, optimizer, answers, rows, runs, wrapped]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with disk(tmp_path_factory.mktemp("faults") / "small", "128k") as found:
        yield found


def raised(writer: Callable[[Path], None], file: Path) -> Exception:
    """What it raises; what it has written is removed."""
    try:
        writer(file)
    except Exception as error:  # of which type, each library decides
        return error
    finally:
        for left in file.parent.glob(f"{file.name}*"):
            left.unlink()
    raise AssertionError("it fits")


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_a_disk_that_fills_up_is_the_places_fault(
    small: Disk, writer: Callable[[Path], None]
) -> None:
    error = raised(writer, small.folder / "x")
    said = describe_fault(error, small.folder, checkpoint=SIZE)
    assert re.fullmatch(
        rf"no room is left in {small.folder} \(\d+ KiB of 128 KiB are free, a checkpoint of the "
        r"trial takes about 293 KiB\); make room",
        said,
    )
    assert describe_fault(StorageFault(said), Path("/elsewhere")) == said


@pytest.mark.parametrize("writer", [*WRITERS, temporary], ids=lambda writer: writer.__name__)
def test_so_is_one_that_is_full_already(small: Disk, writer: Callable[[Path], None]) -> None:
    small.fill()
    try:
        said = describe_fault(raised(writer, small.folder / "x"), small.folder)
        # SQLite gives back its journal before anybody looks.
        free = r"\d+ KiB of 128 KiB are free"
        assert re.fullmatch(rf"no room is left in {small.folder} \({free}\); make room", said)
    finally:
        small.free()


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_so_is_one_that_can_only_be_read(tmp_path: Path, writer: Callable[[Path], None]) -> None:
    with disk(tmp_path / "small", "1m") as small:
        (small.folder / "x").touch()
        small.resize("1m,ro")
        with pytest.raises(Exception) as caught:  # each of its own type
            writer(small.folder / "x")
        said = describe_fault(caught.value, small.folder)
    assert said.endswith("cannot be written: read-only file system; make it writable")
    assert said.startswith(str(small.folder))


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_so_is_a_file_that_may_not_become_so_large(
    tmp_path: Path, writer: Callable[[Path], None]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 4, before[1]))
    try:
        error = raised(writer, tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = describe_fault(error, tmp_path)
    if writer in (plain, wrapped):
        assert said == f"a file in {tmp_path} is larger than files may be there; raise ulimit -f"
    assert said  # libraries may say in their own words that no more can be written


def test_too_many_files_are_told_from_too_many_bytes(tmp_path: Path) -> None:
    with disk(tmp_path / "small", "1m,nr_inodes=3") as small:
        (small.folder / "one").touch()
        (small.folder / "two").touch()
        with pytest.raises(OSError) as caught:
            (small.folder / "three").touch()
        said = describe_fault(caught.value, small.folder)
    assert said.startswith("no room is left in")
    assert "(it holds as many files as it can); make room" in said


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("can't allocate memory"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x.png"),
        PermissionError(errno.EACCES, "Permission denied", "x.png"),
        TypeError("f() got an unexpected positional argument"),
    ],
)
def test_what_a_trial_does_wrong_is_not(error: Exception) -> None:
    assert describe_fault(error, Path("/")) == ""


def test_what_was_dealt_with_is_not() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise ValueError("the recipe is wrong") from None
    except ValueError as error:
        assert describe_fault(error, Path("/")) == ""
