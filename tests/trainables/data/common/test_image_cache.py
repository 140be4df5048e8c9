"""The image cache: the same pixels, made once, whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data import made
from trainables.data.common import image_cache
from trainables.data.common.dataset import Dataset
from trainables.data.common.image_cache import cached_images
from trainables.data.common.images import load_images
from trainables.errors import BadInput

IMAGES = 2 * image_cache.CHUNK + 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_in(tmp_path_factory.mktemp("data"))


def made_in(root: Path, images: int = IMAGES) -> Dataset:
    splits = ("train", "validation", "test")
    return made.dataset(root, [made.Asked(split=splits[i % 3], picture=i) for i in range(images)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache" / "medvlm-study" / "images"


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix != ".lock")


def test_the_images_are_those_that_load_images_reads(data: Dataset, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    images = cached_images(data, 16, progress=lambda done, total: told.append((done, total)))
    assert np.array_equal(images, load_images([path for _, path in data.images()], 16))
    assert told == [(done, IMAGES) for done in range(1, IMAGES + 1)]
    assert [path.suffix for path in kept(folder)] == [".npy"]
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_images_are_decoded_once(folder: Path, tmp_path: Path) -> None:
    data = made_in(tmp_path / "data", 9)
    before = cached_images(data, 16)
    shutil.rmtree(tmp_path / "data")

    def fail(done: int, total: int) -> None:
        raise AssertionError("decoded again")

    assert np.array_equal(cached_images(data, 16, progress=fail), before)


def test_other_content_and_other_sizes_are_other_files(folder: Path, tmp_path: Path) -> None:
    data = made_in(tmp_path / "data", 9)
    assert cached_images(data, 16).shape == (9, 16, 16, 3)
    assert cached_images(data, 8).shape == (9, 8, 8, 3)
    assert cached_images(replace(data, contents={**data.contents, "0.png": "other"}), 8) is not None
    assert len(kept(folder)) == 3


@pytest.mark.parametrize("damage", [b"", b"something else", None], ids=["empty", "other", "cut"])
def test_a_damaged_file_is_made_again(data: Dataset, folder: Path, damage: bytes | None) -> None:
    whole = np.array(cached_images(data, 16))
    (file,) = kept(folder)
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    assert np.array_equal(cached_images(data, 16), whole)


def test_what_was_killed_leaves_nothing(data: Dataset, folder: Path) -> None:
    cached_images(data, 16)
    (file,) = kept(folder)
    file.unlink()
    partial = folder / f".{file.stem}-killed" / file.name
    partial.parent.mkdir()
    partial.write_bytes(b"half")
    cached_images(data, 16)
    assert kept(folder) == [file]


def test_a_broken_image_is_named_and_nothing_is_kept(folder: Path, tmp_path: Path) -> None:
    data = made_in(tmp_path / "data", 9)
    broken = data.images()[4][1]
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(BadInput, match=f"{broken} can't be read"):
        cached_images(data, 16)
    assert kept(folder) == []


def test_several_processes_may_ask_at_once(data: Dataset, folder: Path) -> None:
    """All get the same pixels, and one alone decodes."""
    command = (
        "import sys, hashlib; from pathlib import Path;"
        "from tests.trainables.data.common import test_image_cache;"
        "from trainables.data.common.image_cache import cached_images;"
        "told = []; data = test_image_cache.made_in(Path(sys.argv[1]));"
        "images = cached_images(data, 64, progress=lambda *now: told.append(now));"
        "print(hashlib.sha256(images.tobytes()).hexdigest(), bool(told))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", command, str(folder.parent / f"data{number}")],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        for number in range(3)
    ]
    answers = [process.communicate()[0].split() for process in processes]
    assert len({pixels for pixels, _ in answers}) == 1
    assert sorted(made_it for _, made_it in answers) == ["False", "False", "True"]
    assert len(kept(folder)) == 1


def test_a_folder_without_room_is_passed_over(
    data: Dataset, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    room = {folder: 0}

    def disk_usage(path: Path) -> usage:
        return usage(0, 0, room.get(path, 2**40))

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert len(cached_images(data, 16)) == IMAGES
    assert kept(folder) == []
    (elsewhere,) = (tmp_path / "temporary").glob("*/images/*.npy")
    elsewhere.unlink()
    room[elsewhere.parent] = 1000
    with pytest.raises(BadInput, match=r"131 x 16 x 16 x 3 bytes = 0\.00 GiB.* make room") as error:
        cached_images(data, 16)
    assert "\n" not in str(error.value)


def test_no_folder_that_can_be_written_is_one_line(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(BadInput, match=r"Not a directory.*XDG_CACHE_HOME") as error:
        cached_images(data, 16)
    assert "\n" not in str(error.value)
