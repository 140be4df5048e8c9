"""Tests of ``hub:NAME`` with huggingface_hub itself: from its cache, which is as good as the
hub to whoever has no network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import huggingface_hub
import pytest

from tests.trainables.data.small import slake
from trainables.cache import hub
from trainables.data import slake as slake_set
from trainables.errors import BadInput
from trainables.model_lookup import TINY, family_of
from trainables.workload import WorkloadConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub.local_folder.cache_clear()
    return tmp_path / "hub"


def cached(cache: Path, kind: str, name: str) -> Path:
    """An empty snapshot in the layout of the hub's cache."""
    repository = cache / f"{kind}s--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert hub.local_folder(str(tmp_path), "model") == tmp_path
    assert hub.local_folder("org/name", "dataset") == Path("org/name")


def test_a_model_is_found_and_called_by_its_name(offline: Path) -> None:
    snapshot = cached(offline, "model", "someone/tiny")
    shutil.copytree(TINY, snapshot, dirs_exist_ok=True)
    for given in ("hub:someone/tiny", f"hub:someone/tiny@{COMMIT}"):
        assert family_of(given) == ("blip", snapshot)
    from trainables.models import blip

    assert blip.load(snapshot).name == blip.skeleton(snapshot).name == "tiny"


@pytest.mark.parametrize("zipped", [False, True], ids=["as published", "images in an archive"])
def test_a_dataset_is_read_as_published(offline: Path, tmp_path: Path, zipped: bool) -> None:
    published = tmp_path / "published"
    published.mkdir()
    slake.write(published)
    expected = slake_set.load(published)
    snapshot = cached(offline, "dataset", "someone/slake")
    if zipped:
        with zipfile.ZipFile(snapshot / "imgs.zip", "w") as archive:
            for file in (published / "imgs").rglob("*.jpg"):
                archive.write(file, file.relative_to(published))
        shutil.rmtree(published / "imgs")
    shutil.copytree(published, snapshot, dirs_exist_ok=True)
    config = WorkloadConfig(data="slake", data_root="hub:someone/slake")
    config.check()
    found = config.dataset()
    assert (found.digest, found.train[0].question) == (expected.digest, expected.train[0].question)
    assert config.dataset() == found
    hub.local_folder.cache_clear()
    assert config.dataset() == found, "another process finds what this one unpacked"


def test_an_archive_cannot_write_outside(offline: Path, tmp_path: Path) -> None:
    snapshot = cached(offline, "dataset", "someone/bad")
    with zipfile.ZipFile(snapshot / "imgs.zip", "w") as archive:
        archive.writestr("../../../escaped.txt", "no")
    folder = hub.local_folder("hub:someone/bad", "dataset")
    assert (folder / "escaped.txt").is_file()
    assert not list(tmp_path.glob("escaped.txt")) + list((tmp_path / "cache").glob("*.txt"))


def test_a_damaged_archive_is_named(offline: Path) -> None:
    snapshot = cached(offline, "dataset", "someone/cut")
    (snapshot / "imgs.zip").write_bytes(b"PK no archive")
    with pytest.raises(BadInput, match="can't be unpacked") as refused:
        hub.local_folder("hub:someone/cut", "dataset")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("given", ["hub:nobody/nothing", "hub:not a name", "hub:"])
def test_what_is_not_there_is_one_line(given: str) -> None:
    with pytest.raises(BadInput, match=f"{given} can't be had from the hub") as refused:
        hub.local_folder(given, "model")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "command",
    [
        ("study.audit", "--data", "slake", "--data-root"),
        ("study.launch", "--space", "smoke", "--dry-run", "--data", "slake", "--data-root"),
        ("study.launch", "--space", "smoke", "--dry-run", "--model"),
    ],
)
def test_the_commands_say_it_in_one_line(command: tuple[str, ...]) -> None:
    """The process has neither a network nor the cache."""
    done = subprocess.run(
        [sys.executable, "-m", *command, "hub:nobody/nothing"],
        env={"PATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: hub:nobody/nothing can't be had from the hub")
