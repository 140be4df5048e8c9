"""MLflow for real: a database, its client, and a study that is killed and goes on."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from study.search.scheduler import StudyScheduler
from study.tracking.mlflow_runs import MlflowRuns
from study.tracking.mlflow_store import default_uri
from study.tracking.mlflow_writer import LONGEST_TAG, MlflowWriter, description
from study.trials.spec import Kind
from tests.study.made_up import PROTOCOL, SPACE, cards, play_all
from trainables.errors import BadInput

Begin = Callable[..., StudyScheduler]


def track(folder: Path, study: str = "one") -> MlflowWriter:
    artifacts = folder / "artifacts"
    return MlflowWriter(
        MlflowRuns(default_uri(folder), experiment="made up", artifacts=artifacts), study
    )


def recorded(folder: Path) -> list[Run]:
    client = MlflowClient(default_uri(folder))
    experiment = client.get_experiment_by_name("made up")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def test_what_was_not_written_before_a_kill_is_written_on_resume_and_nothing_twice(
    begin: Begin, tmp_path: Path
) -> None:
    first = track(tmp_path)
    first.begin(SPACE, PROTOCOL | {"settings": {**PROTOCOL["settings"], "seeds": 1}}, [])
    play_all(begin(first), most=4)
    first.close()
    play_all(begin(), most=3)  # these MLflow never hears of: the server was away, say
    second = track(tmp_path)
    scheduler = begin(second)
    later = PROTOCOL | {"commit": "def", "settings": {**PROTOCOL["settings"], "seeds": 3}}
    second.begin(SPACE, later, scheduler.journal.records.values())
    play_all(scheduler)
    page = tmp_path / "report.html"
    page.write_text("a page")
    models = [r.spec.id for r in scheduler.journal.of_kind(Kind.CONFIRM)]
    second.finish(
        "verdict", "models", "table", {"lora.test.overall_percent": 50.0}, [page], models, cards
    )
    third = track(tmp_path)  # a finished study that is asked for again
    third.begin(SPACE, later, scheduler.journal.records.values())
    third.finish(
        "verdict", "models", "table", {"lora.test.overall_percent": 50.0}, [page], models, never
    )
    assert third.error == ""
    assert first.error == second.error == ""

    runs = {run.data.tags.get("trial", "study"): run for run in recorded(tmp_path)}
    assert set(runs) == {"study", *scheduler.journal.records}
    assert len(recorded(tmp_path)) == len(runs)
    client = MlflowClient(default_uri(tmp_path))
    for record in scheduler.journal.records.values():
        run = runs[record.spec.id]
        assert run.data.tags["outcome"] == record.outcome
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[str(record.outcome)]
        history = client.get_metric_history(run.info.run_id, "validation_loss")
        assert [m.step for m in history] == [rung.examples_seen for rung in record.rungs]
    assert runs["study"].data.tags["commit"] == "def"
    assert runs["study"].data.params["settings.seeds"] == "1", "as it began"
    assert runs["study"].data.tags["settings.seeds"] == "3"
    assert runs["study"].data.tags["mlflow.note.content"].startswith("**verdict**\n\nThis study: ")
    assert runs["study"].info.status == "FINISHED"
    history = client.get_metric_history(runs["study"].info.run_id, "lora.test.overall_percent")
    assert [metric.value for metric in history] == [50.0]
    for trial in models:
        (file,) = client.list_artifacts(runs[trial].info.run_id, "model")
        assert file.path == "model/README.md"


def never(trials: Sequence[str], folder: Path) -> None:
    raise AssertionError("a model that MLflow has is written again")


def test_every_run_names_the_data_that_it_used(begin: Begin, tmp_path: Path) -> None:
    tracking = track(tmp_path)
    data = PROTOCOL["data"] | {"ood": {"slake": "cd" * 32}}
    tracking.begin(SPACE, PROTOCOL | {"data": data}, [])
    play_all(begin(tracking))
    tracking.close()
    assert not tracking.error
    told = {
        run.data.tags["kind"]: {
            (i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs
        }
        for run in recorded(tmp_path)
    }
    train = ("phantom.train", "ab" * 18, "training")
    test, other = ("phantom.test", "ab" * 18, "testing"), ("slake.test", "cd" * 18, "testing")
    assert told["search"] == {train}
    assert told["untuned"] == {test, other}
    assert told["confirm"] == told["study"] == {train, test, other}


def test_names_that_mlflow_does_not_take_are_written_as_it_takes_them(
    begin: Begin, tmp_path: Path
) -> None:
    hostile = "../../\x1b[2J & <b>=\"'" + "y" * 5000
    tracking = track(tmp_path)
    data = PROTOCOL["data"] | {"name": hostile, "ood": {hostile: "cd", "../": "ef"}}
    tracking.begin(SPACE, PROTOCOL | {"data": data}, [])
    scheduler = begin(tracking)
    play_all(scheduler)
    models = [r.spec.id for r in scheduler.journal.of_kind(Kind.CONFIRM)]
    scores = {"lora (r=8).test.overall_percent": 50.0, "lora <r=8>.test.overall_percent": 60.0}
    tracking.finish("verdict", "models", "table", scores, [], models, cards)
    assert not tracking.error
    client = MlflowClient(default_uri(tmp_path))
    parent = client.get_run(tracking.parent_id)
    assert parent.info.status == "FINISHED"
    assert {50.0, 60.0} <= set(parent.data.metrics.values())
    assert all(client.list_artifacts(tracking.children[trial], "model") for trial in models)


def test_what_mlflow_refuses_is_said_and_the_rest_is_written(begin: Begin, tmp_path: Path) -> None:
    tracking = track(tmp_path)
    protocol = PROTOCOL | {"commit": "abc"}
    tracking.begin(SPACE, protocol, [])
    tracking.runs.client.log_param(tracking.parent_id, "seed", "1")
    tracking._try(lambda: tracking.runs.log(tracking.parent_id, params={"seed": "2"}))
    scheduler = begin(tracking)
    play_all(scheduler)
    tracking.finish("verdict", "models", "table", {}, [], [], never)
    assert tracking.error.startswith("MlflowException") and "seed" in tracking.error
    runs = {run.data.tags.get("trial", "study"): run for run in recorded(tmp_path)}
    assert set(runs) == {"study", *scheduler.journal.records}
    assert "RUNNING" not in {run.info.status for run in runs.values()}


def test_the_machines_use_is_in_the_studys_run(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    client = MlflowClient(default_uri(tmp_path))
    cpu = "system/cpu_utilization_percentage"
    steps: list[int] = []
    for _ in range(2):  # begun, and gone on with
        tracking = track(tmp_path)
        tracking.begin(SPACE, PROTOCOL, [])
        give_up, before = time.monotonic() + 30, len(steps)
        while len(steps) < before + 2:
            assert time.monotonic() < give_up
            time.sleep(0.2)
            steps = [m.step for m in client.get_metric_history(tracking.parent_id, cpu)]
        tracking.close()
        steps = [m.step for m in client.get_metric_history(tracking.parent_id, cpu)]
    assert steps == sorted(set(steps)), "the second goes on where the first ended"


def test_a_server_that_is_lost_in_mid_study_does_not_end_it(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the client would try for minutes
    lost = track(tmp_path)
    lost.begin(SPACE, PROTOCOL, [])
    # Nothing listens there.
    lost.runs.client = MlflowClient("http://study:planted@127.0.0.1:9")
    assert play_all(begin(lost)).done
    lost.close()
    assert "127.0.0.1" in lost.error and "planted" not in lost.error
    again = track(tmp_path)
    again.begin(SPACE, PROTOCOL, begin().journal.records.values())
    again.close()
    assert not again.error
    assert len(recorded(tmp_path)) == 1 + len(begin().journal.records)


def test_of_runs_that_were_made_twice_the_written_one_goes_on(begin: Begin, tmp_path: Path) -> None:
    """As an earlier version left them: the client had asked again for what the server had made."""
    first = track(tmp_path)
    first.begin(SPACE, PROTOCOL, [])
    records = play_all(begin(first), most=2).journal.records
    first.close()
    for run in recorded(tmp_path):
        tags = {k: v for k, v in run.data.tags.items() if k in ("trial", "mlflow.parentRunId")}
        tags |= {"study": "one", "identity": "5eed", "kind": run.data.tags["kind"]}
        for start in (run.info.start_time - 1, run.info.start_time, run.info.start_time + 1):
            first.runs.client.create_run(run.info.experiment_id, start, tags)
    again = track(tmp_path)
    again.begin(SPACE, PROTOCOL, records.values())
    again.close()
    assert not again.error
    assert again.parent_id == first.parent_id and again.children == first.children
    assert again.whole == set(records)
    assert len(recorded(tmp_path)) == 4 * (1 + len(records))


def test_a_store_that_cannot_be_used_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database" * 100)
    with pytest.raises(BadInput, match="cannot be used"):
        track(tmp_path)


def test_a_refusal_of_mlflows_says_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://study:planted@127.0.0.1:9"
    with pytest.raises(BadInput, match="cannot be used: API request to ") as refusal:
        MlflowRuns(uri, experiment="made up", artifacts=tmp_path)
    assert "study:***@127.0.0.1" in str(refusal.value) and "planted" not in str(refusal.value)


def test_a_description_is_cut_at_a_sentence_and_a_row() -> None:
    verdict = " ".join(f"Arm {n} is better than arm {n + 1} (p < 0.001)." for n in range(300))
    table = "\n".join(f"| arm {n} | {'x' * 90} |" for n in range(100))
    assert description("A. B.", "links", "| a |\n| b |") == "**A. B.**\n\nlinks\n\n| a |\n| b |"
    long = description("A. B.", "links", table)
    head, links, shown, rest = long.split("\n\n")
    assert (head, links) == ("**A. B.**", "links")
    assert table.startswith(shown + "\n") and shown.endswith("|") and len(long) <= LONGEST_TAG
    assert len(long) + len(table.splitlines()[0]) > LONGEST_TAG, "as much as there is room for"
    assert rest == "The report has the other arms."
    longest = description(verdict, "links", table)
    head, links, rest = longest.split("\n\n")
    assert head.endswith("(p < 0.001).** (The report has the rest.)") and links == "links"
    assert rest == "The report has the other arms." and len(longest) <= LONGEST_TAG
