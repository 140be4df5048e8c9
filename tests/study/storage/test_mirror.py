"""Studies in an object store: a real S3 client against a server that speaks S3."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from study.storage import lease
from study.storage import mirror as store_mirror
from study.storage.lease import LEASE
from study.storage.mirror import StoreMirror
from study.storage.object_store import ObjectStore, local_copy
from study.storage.study_folder import StudyFolder
from tests.study.object_store import serve
from tests.trainables.conftest import SMALL, made_up
from tests.trainables.cut_short import cut
from trainables.errors import BadInput
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with serve("medvlm") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield "s3://medvlm"


@pytest.fixture
def url(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of the test's own, and an empty machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "TIMEOUT_SECONDS", 1.0)
    return f"{bucket}/{tmp_path.name}"


def another_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


def save(folder: Path, name: str, content: str) -> None:
    (folder / name / "deep").mkdir(parents=True)
    (folder / name / "weights").write_text(content)
    (folder / name / "deep" / "state").write_text(content * 2)


def test_objects_are_there_whole_and_go(url: str, tmp_path: Path) -> None:
    store = ObjectStore(url)
    store.check()
    assert store.listing() == [] and store.read("a") is None
    store.write("a", b"1")
    store.write("a", b"22")
    store.write("deep/er", b"3")
    assert store.read("a") == b"22" and sorted(store.listing()) == ["a", "deep/er"]
    store.part("deep").get("er", tmp_path / "got" / "er")
    assert (tmp_path / "got" / "er").read_bytes() == b"3"
    big = os.urandom(12 * 2**20)
    (tmp_path / "big").write_bytes(big)
    store.put(tmp_path / "big", "big")
    assert store.read("big") == big
    store.drop("deep")
    store.drop("a")
    assert store.listing() == ["big"]


@pytest.mark.parametrize("wrong", ["s3://no-such-bucket/x", "s3://"])
def test_a_store_that_is_not_there_is_refused(bucket: str, wrong: str) -> None:
    with pytest.raises(BadInput, match=f"cannot write to --storage {wrong}"):
        ObjectStore(wrong).check()


def test_a_checkpoint_goes_to_another_machine(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_folder = StudyFolder(storage=url, name="study")
    assert list(study_folder.fetch_checkpoint("t").glob("*")) == []
    for name in ("000000000064", "000000000128"):
        save(study_folder.fetch_checkpoint("t"), name, name)
        study_folder.keep_checkpoint("t", study_folder.put_checkpoint("t"))
        assert not (study_folder.path / "checkpoints" / "t").exists(), "it would fill the disk"
    another_machine(monkeypatch, tmp_path / "other")
    (found,) = study_folder.fetch_checkpoint("t").iterdir()
    assert found.name == "000000000128"
    assert (found / "deep" / "state").read_text() == found.name * 2
    kept = ObjectStore(url).listing("study/checkpoints")
    assert not [key for key in kept if "000000000064" in key]


def test_half_a_checkpoint_is_none(url: str) -> None:
    """Killed while it was written: the one before counts."""
    study_folder = StudyFolder(storage=url, name="study")
    save(study_folder.fetch_checkpoint("t"), "000000000064", "old")
    study_folder.keep_checkpoint("t", study_folder.put_checkpoint("t"))
    ObjectStore(url).write("study/checkpoints/t/000000000128/weights", b"half")
    (found,) = study_folder.fetch_checkpoint("t").iterdir()
    assert found.name == "000000000064"


def test_a_copy_or_an_object_that_is_cut_short_is_found_out(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = made_up(SMALL["llava"]())
    tuned = Recipe.from_plain({"decoder": {"method": "layernorm"}})
    one = TrialConfig(recipe=tuned, lr=1e-3, seed=0, max_examples=16, batch_size=8)
    trial, study_folder = Trial(workload, one), StudyFolder(storage=url, name="study")
    trial.step()
    trial.save(study_folder.fetch_checkpoint("t"))
    keys = study_folder.put_checkpoint("t")
    study_folder.keep_checkpoint("t", [*keys, *keys])  # as where two machines put the same list
    store = ObjectStore(f"{url}/study/checkpoints/t")
    assert sorted(json.loads(store.read("whole") or b"")["files"]) == sorted(
        key.partition("/")[2] for key in keys
    )
    for key in keys:
        cut(study_folder.fetch_checkpoint("t") / key, "by a byte")
        assert Trial(workload, one).restore(study_folder.fetch_checkpoint("t")), key
    for number, key in enumerate([*keys, "whole"]):
        content = store.read(key) or b""
        for left in (content[:-1], None):
            another_machine(monkeypatch, tmp_path / f"{number} {left is None}")
            store.drop(key) if left is None else store.write(key, left)
            again = Trial(workload, one)
            assert not again.restore(study_folder.fetch_checkpoint("t")), key
            assert again.examples_seen == 0
        store.write(key, content)
    assert Trial(workload, one).restore(study_folder.fetch_checkpoint("t"))


def test_a_shared_folder_needs_nothing(tmp_path: Path) -> None:
    study_folder = StudyFolder(storage=tmp_path, name="study")
    save(study_folder.fetch_checkpoint("t"), "000000000064", "x")
    study_folder.keep_checkpoint("t", study_folder.put_checkpoint("t"))
    study_folder.keep(study_folder.answers("x", "test"))
    assert (tmp_path / "study/checkpoints/t/000000000064/weights").exists()
    assert study_folder.path == tmp_path / "study"


def test_a_study_goes_on_elsewhere(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StoreMirror(StudyFolder(storage=url, name="one")) as mirror:
        (mirror.folder / "study.json").parent.mkdir(parents=True, exist_ok=True)
        (mirror.folder / "study.json").write_text("{}")
        (mirror.folder / "optuna.journal").write_text("1\n")
        mirror.study_folder.path.joinpath("answers").mkdir()
        (mirror.folder / "answers" / "a").write_text("yes")
        mirror.study_folder.keep(mirror.folder / "answers" / "a")
        with (mirror.folder / "optuna.journal").open("a") as journal:
            journal.write("2\n")
        (mirror.folder / "pages").mkdir()
        (mirror.folder / "pages" / "report.html").write_text("<p>")
    assert ObjectStore(url).listing("one/answers") == ["one/answers/a"]
    assert LEASE not in ObjectStore(f"{url}/one").listing()

    another_machine(monkeypatch, tmp_path / "other")
    assert (store_mirror.fetch_settings(url) / "one" / "study.json").read_text() == "{}"
    with StoreMirror(StudyFolder(storage=url, name="one")) as mirror:
        assert (mirror.folder / "optuna.journal").read_text() == "1\n2\n"
        assert (mirror.folder / "pages" / "report.html").read_text() == "<p>"
        assert not (mirror.folder / "answers").exists()
        save(mirror.study_folder.fetch_checkpoint("c"), "000000000064", "confirmed")
        mirror.study_folder.keep_checkpoint("c", mirror.study_folder.put_checkpoint("c"))
        save(mirror.study_folder.fetch_checkpoint("s"), "000000000064", "its driver was killed")
        mirror.study_folder.keep_checkpoint("s", mirror.study_folder.put_checkpoint("s"))
        mirror.fetch_answers()
        assert (mirror.folder / "answers" / "a").read_text() == "yes"
        assert mirror.store.listing("checkpoints/s")
        mirror.fetch({"c"})
        assert [f.name for f in (mirror.folder / "checkpoints").iterdir()] == ["c"]
        assert not mirror.store.listing("checkpoints/s")

    another_machine(monkeypatch, tmp_path / "of whoever exports")
    folder = store_mirror.fetch_study(url, "one").path
    assert (folder / "pages" / "report.html").read_text() == "<p>"
    assert (folder / "answers" / "a").read_text() == "yes"
    assert (folder / "checkpoints" / "c" / "000000000064" / "weights").is_file()
    assert not store_mirror.fetch_study(url, "none").path.exists()


def test_what_the_store_did_not_get_is_not_lost(url: str) -> None:
    with StoreMirror(StudyFolder(storage=url, name="one")) as mirror:
        mirror.folder.mkdir(parents=True, exist_ok=True)
        (mirror.folder / "study.json").write_text("{}")
        (mirror.folder / "optuna.journal").write_text("1\n")
    # Out of reach from here on: only this machine has the second line, and a third that another
    # machine's study never had.
    (mirror.folder / "optuna.journal").write_text("1\n2\n")
    with StoreMirror(StudyFolder(storage=url, name="one")) as mirror:
        assert (mirror.folder / "optuna.journal").read_text() == "1\n2\n"
    (mirror.folder / "optuna.journal").write_text("1\n3\n")
    with StoreMirror(StudyFolder(storage=url, name="one")) as mirror:
        assert (mirror.folder / "optuna.journal").read_text() == "1\n2\n", "the store counts"


def test_one_driver_at_a_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        StoreMirror(StudyFolder(storage=url, name="one")),
        pytest.raises(BadInput, match=f"running already, on {socket.gethostname()}"),
        StoreMirror(StudyFolder(storage=url, name="one")),
    ):
        pass
    # A killed driver leaves its lease and renews it no more.
    ObjectStore(url).write(f"one/{LEASE}", json.dumps({"driver": "node-7 x", "beat": 0}).encode())
    with StoreMirror(StudyFolder(storage=url, name="one")):
        pass


def test_a_driver_that_was_taken_for_dead_stops(url: str) -> None:
    record: Any = None
    with StoreMirror(StudyFolder(storage=url, name="one")) as mirror:
        ObjectStore(url).write(
            f"one/{LEASE}", json.dumps({"driver": "node-7 x", "beat": 0}).encode()
        )
        give_up = time.monotonic() + 10
        with pytest.raises(BadInput, match="was taken over, on node-7"):
            while time.monotonic() < give_up:
                mirror.started(record)
                time.sleep(0.05)
    assert ObjectStore(url).read(f"one/{LEASE}") is not None, "the lease is the other's"


def test_a_key_that_leads_out_of_the_study_is_refused(url: str, tmp_path: Path) -> None:
    """Whoever may write into a bucket must not write into its readers' home folders."""
    import boto3

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    said, copy = "cannot name a file in", local_copy(url)
    out = "/".join([".."] * len(copy.parts)) + f"{tmp_path}/out"
    ObjectStore(url).write("one/study.json", b"{}")
    for key in (f"{out}/study.json", "../study.json"):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"{}")
        with pytest.raises(BadInput, match=f"cannot read --storage .* {said}"):
            store_mirror.fetch_settings(url)
        client.delete_object(Bucket=bucket, Key=f"{prefix}/{key}")
    for key in (f"one/{out}", f"one/answers/{out}", f"one/checkpoints/{out}"):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"{}")
        with pytest.raises(BadInput, match=said):
            store_mirror.fetch_study(url, "one")
        client.delete_object(Bucket=bucket, Key=f"{prefix}/{key}")
    study_folder = StudyFolder(storage=url, name="one")
    for whole in ({"name": "../../..", "files": ["x"]}, {"name": "000000000064", "files": [out]}):
        ObjectStore(url).write("one/checkpoints/t/whole", json.dumps(whole).encode())
        with pytest.raises(BadInput, match=said):
            study_folder.fetch_checkpoint("t")
    with pytest.raises(BadInput, match=said):
        study_folder.fetch_checkpoint("../t")
    assert not (tmp_path / "out").exists() and study_folder.path.is_dir()
    outside = copy.parent / "outside"
    outside.mkdir()
    (outside / "study.json").touch()
    store_mirror.fetch_study(url, "../outside")
    assert (outside / "study.json").exists(), "it is no study's copy, to be made anew"


def test_a_cache_folder_that_cannot_be_written_is_passed_over(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert local_copy(url).is_dir()


def test_nothing_heavy_is_imported() -> None:
    heavy = ["pyarrow", "ray", "optuna", "torch"]
    probe = f"import sys, study.storage.mirror; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
