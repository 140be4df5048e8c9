"""What nothing needs is removed, and nothing else: studies go on and are exported as before."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from study import clean
from study.search.scheduler import StudyScheduler
from study.storage.lease import LEASE
from study.storage.object_store import ObjectStore
from study.storage.paths import partial_path
from study.storage.study_folder import StudyFolder
from study.trials.spec import Kind
from tests.study.inventory.test_deletion import files
from tests.study.inventory.test_overview import begun
from tests.study.made_up import play_all, rung
from tests.study.object_store import serve

DAY = 86_400.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache" / "medvlm-study"


def save(folder: StudyFolder, trial: str, name: str = "000000000064") -> str:
    """A checkpoint of a trial; its path in the study."""
    path = folder.checkpoints(trial) / name / "trained.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(1024))
    return str(path.relative_to(folder.path))


def age(path: Path, days: float) -> None:
    for each in (path, *path.rglob("*")):
        os.utime(each, (time.time() - days * DAY,) * 2)


def test_checkpoints_that_a_study_needs_stay(
    begin: Callable[..., StudyScheduler], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studies").mkdir()
    folder = begun(tmp_path / "studies", "study")
    scheduler = play_all(begin(folder="studies/study"), most=3)
    ended = [r.spec.id for r in scheduler.journal.records.values()]
    running = scheduler.next()
    assert running is not None
    scheduler.reported(running.id, rung(running, running.stops[0]))
    kept = {save(folder, running.id)}
    gone = {save(folder, ended[0]), save(folder, running.id, "partial-x"), save(folder, "nobody's")}
    half_written = [
        folder.path / ".study.json.partial-1",  # as earlier versions named it
        partial_path(folder.path / "results.json"),
        partial_path(folder.answers("0123456789ab", "test")),
    ]
    for file in half_written:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    running_export = partial_path(folder.export("lora"))
    # No process has so high a number.
    killed = running_export.with_name(f"{running_export.name.rpartition('-')[0]}-{10**8}")
    for export in (running_export, killed):
        export.mkdir(parents=True)
        (export / "README.md").write_text("?")
    arguments = ["--storage", str(tmp_path / "studies")]
    before = files(tmp_path / "studies")
    with folder.only_driver():
        assert clean.main(arguments) == 0
    assert "nothing can be freed" in capsys.readouterr().out, "a driver runs it"
    assert clean.main([*arguments, "--dry-run"]) == 0
    assert "can be freed" in capsys.readouterr().out
    assert {*files(tmp_path / "studies")} - {"study/.lock"} == {*before}
    assert clean.main(arguments) == 0
    assert "3 KiB freed" in capsys.readouterr().out
    left = {path for path in files(folder.path) if path.endswith(".safetensors")}
    assert left == kept and not gone & left
    assert not any(file.exists() for file in half_written)
    assert running_export.exists() and not killed.exists()
    assert clean.main(arguments) == 0 and "nothing" in capsys.readouterr().out


def test_confirmed_models_of_a_finished_study_stay(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    (tmp_path / "studies").mkdir()
    folder = begun(tmp_path / "studies", "study")
    scheduler = play_all(begin(folder="studies/study"))
    saved = {r.spec.id: save(folder, r.spec.id) for r in scheduler.journal.records.values()}
    folder.results.write_text("{}")
    assert clean.main(["--storage", str(tmp_path / "studies")]) == 0
    confirmed = {saved[r.spec.id] for r in scheduler.journal.of_kind(Kind.CONFIRM)}
    assert {path for path in files(folder.path) if path.endswith(".safetensors")} == confirmed


def test_what_cannot_be_read_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studies").mkdir()
    folder = begun(tmp_path / "studies", "study")
    save(folder, "x")
    assert clean.main(["--storage", str(tmp_path / "studies")]) == 0
    assert "nothing can be freed" in capsys.readouterr().out, "its journal may be lost"
    (folder.path / "optuna.journal").write_text("no JSON\n")
    assert clean.main(["--storage", str(tmp_path / "studies")]) == 0
    assert "study is left as it is" in capsys.readouterr().out
    assert len([path for path in files(folder.path) if path.endswith(".safetensors")]) == 1


def test_caches_that_nobody_used_for_long_go(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studies").mkdir()
    for name in (
        "images/new.npy",
        "images/old.npy",
        "phantom-v1/a/b.png",
        "storage/x/y/study.json",
    ):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(bytes(100))
    (cache / "features" / ".left-x").mkdir(parents=True)
    (cache / "features" / ".left-x" / "part").touch()
    (cache / "features" / ".made-x").mkdir()
    for name, days in {"images/old.npy": 40, "phantom-v1": 40, "storage": 400}.items():
        age(cache / name, days)
    age(cache / "features" / ".left-x", 2)
    arguments = ["--storage", str(tmp_path / "studies")]
    assert clean.main([*arguments, "--unused-days", "50"]) == 0
    assert files(cache / "features") == [".made-x"] and (cache / "images/old.npy").exists()
    assert clean.main(arguments) == 0
    assert "cache, not used for 40 days" in capsys.readouterr().out
    assert [path for path in files(cache) if "." in path] == [
        "features/.made-x",
        "images/new.npy",
        "storage/x/y/study.json",
    ]
    assert clean.main([*arguments, "--unused-days", "-1"]) == 2


def test_a_temporary_folder_that_another_user_has_made_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's ``images`` may lead to files of this user."""
    (tmp_path / "studies").mkdir()
    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "old").touch()
    age(letters, 400)
    uid = os.getuid()
    for number in (uid, uid + 1):
        made = tmp_path / "temporary" / f"medvlm-study-{number}"
        made.mkdir(parents=True)
        (made / "images").symlink_to(letters)
    with monkeypatch.context() as patch:
        patch.setattr("os.getuid", lambda: uid + 1)
        assert clean.main(["--storage", str(tmp_path / "studies")]) == 0
    assert (letters / "old").exists()
    assert clean.main(["--storage", str(tmp_path / "studies")]) == 0
    assert not (letters / "old").exists(), "one that this user has made may be a link"


@pytest.fixture
def url() -> Iterator[str]:
    with serve("medvlm") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield "s3://medvlm/studies"


def test_a_store_and_its_copy_are_cleaned(
    url: str,
    begin: Callable[..., StudyScheduler],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "studies").mkdir()
    made = begun(tmp_path / "studies", "study")
    scheduler = play_all(begin(folder="studies/study"))
    for record in scheduler.journal.records.values():
        save(made, record.spec.id)
    made.results.write_text("{}")
    folder = StudyFolder(storage=url, name="study")
    folder.path.mkdir(parents=True)
    for file in (path for path in made.path.rglob("*") if path.is_file()):
        folder.store.put(file, str(file.relative_to(made.path)))
    whole = ObjectStore(f"{url}/study")
    there = whole.listing("checkpoints")
    journal = (made.path / "optuna.journal").read_bytes()
    (folder.path / "optuna.journal").write_bytes(journal + b"x")
    assert clean.main(["--storage", url]) == 0
    assert "this machine has more of it than the store" in capsys.readouterr().out
    (folder.path / "optuna.journal").write_bytes(journal)
    whole.write(LEASE, b'{"driver": "host x", "beat": 0}')  # its clock may be wrong
    assert clean.main(["--storage", url]) == 0
    assert whole.listing("checkpoints") == there and folder.path.is_dir()
    whole.drop(LEASE)
    (folder.export("lora") / "model").mkdir(parents=True)
    assert clean.main(["--storage", url]) == 0
    confirmed = {record.spec.id for record in scheduler.journal.of_kind(Kind.CONFIRM)}
    kept = {key.split("/")[1] for key in whole.listing("checkpoints")}
    assert {key.split("/")[0] for key in kept} <= confirmed and len(kept) == len(confirmed)
    assert folder.path.is_dir(), "an exported model is nowhere else"
    shutil.rmtree(folder.export("lora").parent)
    assert clean.main(["--storage", url]) == 0
    assert not folder.path.exists()


def test_nothing_is_removed_through_a_link(
    begin: Callable[..., StudyScheduler], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("studies", "other"):
        (tmp_path / name).mkdir()
    folder = begun(tmp_path / "other", "study")
    scheduler = play_all(begin(folder="other/study"), most=2)
    ended = [r.spec.id for r in scheduler.journal.records.values()]
    save(folder, ended[0])
    elsewhere = tmp_path / "scratch" / ended[1]
    elsewhere.mkdir(parents=True)
    (elsewhere / "mine").touch()
    (folder.path / "checkpoints" / ended[1]).symlink_to(elsewhere)
    (tmp_path / "studies" / "study").symlink_to(folder.path)
    before = files(folder.path)
    assert clean.main(["--storage", str(tmp_path / "studies")]) == 0
    shown = capsys.readouterr().out
    assert f"study is left as it is: it is a link to {folder.path}; name the folder" in shown
    assert files(folder.path) == before
    assert clean.main(["--storage", str(tmp_path / "other")]) == 0
    assert not [*(folder.path / "checkpoints").iterdir()] and (elsewhere / "mine").exists()
    (folder.path / "checkpoints").rmdir()
    (folder.path / "checkpoints").symlink_to(tmp_path / "scratch")
    assert clean.main(["--storage", str(tmp_path / "other")]) == 0
    assert "nothing can be freed" in capsys.readouterr().out
    assert (elsewhere / "mine").exists() and (folder.path / "checkpoints").is_symlink()
