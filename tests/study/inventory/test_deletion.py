"""A study that is deleted leaves nothing behind, and takes nothing of another one with it."""

import copy
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from study import delete
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.study_json import identity, open_study
from study.inventory.deletion import plan_deletion
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage import lease, study_files
from study.storage.object_store import ObjectStore
from study.storage.paths import MLFLOW_ARTIFACTS
from study.storage.study_folder import StudyFolder
from study.tracking import mlflow_delete, mlflow_views
from study.tracking.mlflow_delete import StudyIdentity, StudyRuns, runs_of
from study.tracking.mlflow_runs import MlflowRuns
from study.tracking.mlflow_store import default_uri, noted
from study.tracking.mlflow_writer import MlflowWriter
from study.trials.spec import Kind
from tests.study.made_up import PROTOCOL, SPACE, cards, play_all, rules
from tests.study.object_store import serve
from trainables.errors import BadInput

Tables = dict[str, list[tuple[object, ...]]]
DEFINITION = StudyDefinition.parse(Settings(space="smoke"))


def recorded(storage: Path, name: str, *, seed: int, uri: str = "", model: str = "") -> None:
    """A made-up study with its runs, models and files in MLflow, one of them registered."""
    study_folder = StudyFolder(storage=storage, name=name)
    folder = open_study(study_folder, DEFINITION, run=DEFINITION.space.arms, base={})
    (folder / "checkpoints" / "x").mkdir(parents=True)
    uri = uri or default_uri(storage)
    runs = MlflowRuns(uri, experiment="smoke", artifacts=storage / MLFLOW_ARTIFACTS)
    journal, tracking = StudyJournal(folder), MlflowWriter(runs, name)
    data = {**PROTOCOL["data"], "digest": f"{seed:02d}" * 16}  # also data that no other study has
    tracking.begin(SPACE, PROTOCOL | {"identity": identity(folder), "data": data}, [])
    asked = replace(rules(seed=seed, trials=4), confirm_seeds=1)
    play_all(StudyScheduler(asked, journal, [tracking]))
    models = [record.spec.id for record in journal.of_kind(Kind.CONFIRM)][:1]
    tracking.finish(
        "verdict", "models", "table", {"x": 1.0}, [folder / "study.json"], models, cards
    )
    assert tracking.error == ""
    view = f"mlflow.sharedViewState.{tracking.parent_id}"
    runs.client.set_experiment_tag(runs.experiment_id, view, "as MLflow keeps a view of the study")
    if model:
        run = tracking.children[models[0]]
        runs.register(run, model, {"study": name}, "better")


def rows(storage: Path) -> Tables:
    """Everything that MLflow's database holds, but what the views of all studies show, which every
    study that ends writes anew."""
    with closing(sqlite3.connect(storage / "mlflow.db")) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        found = {
            name: sorted(database.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
            for (name,) in names
        }
    general = {mlflow_views.TAG + key for key in mlflow_views.GENERAL}
    if "experiment_tags" in found:
        found["experiment_tags"] = [
            row[:1] if row[0] in general else row for row in found["experiment_tags"]
        ]
    return found


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with a study that is to stay, of the same space and partly the same data."""
    folder = tmp_path_factory.mktemp("deletion")
    recorded(folder, "stays", seed=0, model="shared")
    return folder


def test_nothing_is_left_and_nothing_else_goes(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, listed = rows(storage), files(storage)
    recorded(storage, "goes", seed=1, model="shared")
    recorded(storage, "goes-too", seed=1, model="own")
    arguments = ["--storage", str(storage)]
    there = rows(storage), files(storage)
    assert delete.main(["goes", *arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert str(storage / "goes") in shown and "8 runs" in shown and "shared 2" in shown
    assert (rows(storage), files(storage)) == there, "nothing goes by --dry-run"
    for name in ("goes", "goes-too"):
        assert delete.main([name, *arguments, "--yes"]) == 0
        assert f"study {name} is deleted" in capsys.readouterr().out
    after = rows(storage)
    for table in before.keys() | after.keys():
        if table == "registered_models":  # a version was added to it meanwhile
            assert [row[1] for row in after[table]] == [row[1] for row in before[table]]
            continue
        assert after[table] == before[table], table
    assert files(storage) == listed
    assert delete.main(["goes", *arguments, "--yes"]) == 2


def test_it_asks_on_a_terminal_and_takes_no_for_an_answer(
    storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = rows(storage), files(storage)
    asked = ["stays", "--storage", str(storage)]
    assert delete.main(asked) == 2, "nobody is there to be asked"
    (line,) = capsys.readouterr().err.splitlines()
    assert "give --yes, or --dry-run" in line
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer in ("n", "", "yess"):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert delete.main(asked) == 1
        assert "nothing was deleted" in capsys.readouterr().out
    assert (rows(storage), files(storage)) == there


def test_a_study_that_runs_is_not_deleted(storage: Path) -> None:
    study_folder = StudyFolder(storage=storage, name="stays")
    there = rows(storage), files(storage)
    with study_folder.only_driver():
        with pytest.raises(BadInput, match=r"'stays' is running on \S+; stop it first"):
            plan_deletion(study_files.one(str(storage), "stays"), None)
        assert delete.main(["stays", "--storage", str(storage), "--yes"]) == 2
    deletion = plan_deletion(study_files.one(str(storage), "stays"), None)
    with study_folder.only_driver(), pytest.raises(BadInput, match="is running already; stop it"):
        deletion.carry_out(print)
    (study_folder.path / ".lock").unlink()
    assert (rows(storage), files(storage)) == there


@pytest.mark.slow
def test_a_study_of_another_version_or_half_made_goes_too(storage: Path) -> None:
    arguments = ["--storage", str(storage), "--yes"]
    before, listed = rows(storage), files(storage)
    recorded(storage, "newer", seed=3)
    settings = storage / "newer" / "study.json"
    settings.write_text(settings.read_text().replace('"version": 1', '"version": 9, "new": 1'))
    (storage / "half" / "checkpoints").mkdir(parents=True)
    (storage / "half" / "study.log").touch()
    for name in ("newer", "half"):
        assert delete.main([name, *arguments]) == 0
    assert rows(storage) == before and files(storage) == listed


def test_no_run_is_deleted_that_may_be_another_studys(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A half-made study of the name of one in another storage whose MLflow is the same, and a copy
    of a study's folder, which has its identity."""
    before, listed = rows(storage), files(storage)
    other = tmp_path / "other"
    (other / "stays" / "checkpoints").mkdir(parents=True)
    (other / "stays" / "study.log").touch()
    shared = ["--storage", str(other), "--tracking-uri", default_uri(storage), "--yes"]
    assert delete.main(["stays", *shared]) == 0
    assert "MLflow: nothing; runs that it has of the study stay" in capsys.readouterr().out
    shutil.copytree(storage / "stays", storage / "copy")
    (storage / "copy" / "optuna.journal").write_text("{}\n")
    assert delete.main(["copy", "--storage", str(storage), "--yes"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has trials, but MLflow at" in line and "or --without-mlflow to delete the rest" in line
    assert delete.main(["copy", "--storage", str(storage), "--yes", "--without-mlflow"]) == 0
    assert rows(storage) == before and files(storage) == listed


def test_a_store_that_the_environment_names_is_looked_into_beside_the_storages_own(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, listed = rows(storage), files(storage)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_uri(tmp_path))
    recorded(storage, "own", seed=4)
    recorded(storage, "elsewhere", seed=5, uri=default_uri(tmp_path))
    for name in ("own", "elsewhere"):
        assert delete.main([name, "--storage", str(storage), "--yes"]) == 0
    assert rows(storage) == before
    assert not [row for row in rows(tmp_path)["runs"] if "elsewhere" in str(row)]
    assert files(storage) == listed


def test_a_study_that_has_gone_on_meanwhile_is_not_deleted(storage: Path) -> None:
    deletion = plan_deletion(study_files.one(str(storage), "stays"), None)
    (known,) = deletion.runs
    older = replace(deletion, runs=(replace_ids(known, known.ids[:-1]),))
    there = rows(storage), files(storage)
    with pytest.raises(BadInput, match="has gone on since; nothing was deleted"):
        older.carry_out(print)
    (storage / "stays" / ".lock").unlink()
    assert (rows(storage), files(storage)) == there


def replace_ids(runs: StudyRuns, ids: tuple[str, ...]) -> StudyRuns:
    """The same runs, as they were when there were only these."""
    earlier = copy.copy(runs)
    earlier.ids = ids
    return earlier


def test_a_study_without_identity_is_known_by_its_name_and_its_files(
    storage: Path, tmp_path: Path
) -> None:
    """The first studies had none. One of this name that has an identity is another one, and one
    whose files are elsewhere, as all are for a server, may be."""
    uri, unnamed = default_uri(storage), StudyIdentity(name="stays", identity="", space="smoke")
    assert runs_of(uri, unnamed, storage / MLFLOW_ARTIFACTS).ids == ()
    own = identity(storage / "stays")
    for name, number in (("stays", 8), ("x", 0)):
        found = runs_of(uri, StudyIdentity(name=name, identity=own, space="smoke"), storage)
        assert len(found.ids) == number
    shutil.copy(storage / "mlflow.db", tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("DELETE FROM tags WHERE key = 'identity'")
    older = default_uri(tmp_path)
    assert len(runs_of(older, unnamed, storage / MLFLOW_ARTIFACTS).ids) == 8
    assert runs_of(older, unnamed, tmp_path / MLFLOW_ARTIFACTS).ids == ()
    assert mlflow_delete._OnServer(older, unnamed).ids == ()


def test_no_store_of_mlflow_is_made(tmp_path: Path) -> None:
    folder = StudyFolder(storage=tmp_path, name="one")
    open_study(folder, DEFINITION, run=DEFINITION.space.arms, base={})
    assert delete.main(["one", "--storage", str(tmp_path), "--yes"]) == 0
    assert files(tmp_path) == []


def test_it_is_deleted_from_every_store_in_which_a_session_recorded_it(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no option names them, and the first session had none."""
    before, listed = rows(storage), files(storage)
    recorded(storage, "wanders", seed=6)
    elsewhere = [default_uri(tmp_path / name) for name in ("first", "second")]
    for uri in elsewhere:
        record_again(storage, "wanders", uri)
    assert len(rows(tmp_path / "second")["runs"]) == 8
    assert delete.main(["wanders", "--storage", str(storage), "--yes"]) == 0
    assert rows(storage) == before and files(storage) == listed
    for name in ("first", "second"):
        assert rows(tmp_path / name)["runs"] == []


def record_again(storage: Path, name: str, uri: str) -> None:
    """A session that writes a study's runs into another store, and notes it."""
    folder, space = storage / name, DEFINITION.space
    journal = StudyJournal(folder)
    journal.record_mlflow(noted(uri, storage))
    runs = MlflowRuns(uri, experiment="smoke", artifacts=storage / MLFLOW_ARTIFACTS)
    tracking = MlflowWriter(runs, name)
    about = PROTOCOL | {"identity": identity(folder)}
    tracking.begin(space, about, journal.records.values())
    tracking.finish("verdict", "models", "table", {}, [], [], cards)
    assert tracking.error == ""


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("sqlite:////elsewhere/m.db", "sqlite:////elsewhere/m.db, which is not there: give the"),
        ("postgresql://me:pw@db/mlflow", "postgresql://me:***@db/mlflow, whose password is not"),
    ],
)
def test_a_store_that_cannot_be_opened_must_be_given(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
    said: str,
) -> None:
    """Whether the journal has its address, or only the command that began the study."""
    monkeypatch.setattr(sys, "argv", ["study.launch", "--tracking-uri", address])
    for name in ("old", "new"):
        folder = StudyFolder(storage=tmp_path, name=name)
        open_study(folder, DEFINITION, run=DEFINITION.space.arms, base={})
        monkeypatch.setattr(sys, "argv", ["study.launch", "--resume", "new"])
    StudyJournal(tmp_path / "new").record_mlflow(noted(address, tmp_path))
    for name in ("old", "new"):
        assert delete.main([name, "--storage", str(tmp_path), "--yes"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert (tmp_path / name / "study.json").is_file()


def test_a_link_is_not_followed(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = rows(storage), files(storage)
    (tmp_path / "link").symlink_to(storage / "stays")
    asked = ["link", "--storage", str(tmp_path), "--yes"]
    for more in ([], ["--without-mlflow"]):
        assert delete.main([*asked, *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"rm {tmp_path / 'link'}; or the study: python -m study.delete stays " in line
        assert line.endswith(f"--storage {storage}")
    assert (rows(storage), files(storage)) == there


def test_what_a_link_in_its_folder_leads_to_stays_and_what_is_not_a_studys_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = StudyFolder(storage=tmp_path / "studies", name="one")
    (tmp_path / "studies").mkdir()
    open_study(folder, DEFINITION, run=DEFINITION.space.arms, base={})
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "mine").touch()
    (folder.path / "checkpoints").symlink_to(tmp_path / "scratch")
    (folder.path / "notes").mkdir()
    (folder.path / "notes" / "mine.txt").touch()
    assert delete.main(["one", "--storage", str(tmp_path / "studies"), "--yes"]) == 0
    shown = capsys.readouterr().out
    assert f"{folder.path / 'checkpoints'}: only the link" in shown
    assert f"{folder.path / 'notes'}: no study wrote it, and it goes too" in shown
    assert shown.count("no study wrote it") == 1
    assert files(tmp_path) == ["scratch", "scratch/mine", "studies"]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serve("medvlm") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        patch.setattr(lease, "BEAT_SECONDS", 0.2)
        patch.setattr(lease, "TIMEOUT_SECONDS", 1.0)
        yield "s3://medvlm/studies"


def test_a_store_has_nothing_of_it_either(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import boto3

    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for name in ("stays", "goes"):
        study_folder = StudyFolder(storage=url, name=name)
        open_study(study_folder, DEFINITION, run=DEFINITION.space.arms, base={})
        for file in ("study.json", "checkpoints/t/000001/x", "answers/t-test.parquet"):
            (study_folder.path / file).parent.mkdir(parents=True, exist_ok=True)
            (study_folder.path / file).touch()
            study_folder.store.put(study_folder.path / file, file)
    arguments = ["--storage", url, "--tracking-uri", database]
    held = lease.Lease(ObjectStore(f"{url}/goes"), "goes")
    held.take()
    assert delete.main(["goes", *arguments, "--yes"]) == 2
    assert "is running on" in capsys.readouterr().err
    held.drop()
    assert delete.main(["goes", *arguments, "--yes"]) == 0
    keys = [each["Key"] for each in boto3.client("s3").list_objects_v2(Bucket="medvlm")["Contents"]]
    assert [key for key in keys if "goes" in key] == []
    assert len([key for key in keys if key.startswith("studies/stays/")]) >= 3
    assert not StudyFolder(storage=url, name="goes").path.exists(), "the copy on this machine"
    assert [each.name for each in study_files.every(url)] == ["stays"]
    assert delete.main(["goes", *arguments, "--yes"]) == 2
