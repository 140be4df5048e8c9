"""Views in MLflow: what they show, for whom, and that a browser draws them.

The browser is Debian's ``chromium``; where there is none, its tests say so and are skipped.
"""

import asyncio
import base64
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.server.auth.client import AuthServiceClient

from search_spaces.declare import Arm, Choice, Space, method
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.study_json import identity, open_study
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage.paths import MLFLOW_ARTIFACTS
from study.storage.study_folder import StudyFolder
from study.tracking import mlflow_names, mlflow_store, mlflow_views
from study.tracking.mlflow_runs import BY_HAND, COLOUR, LOG_LR, MlflowRuns
from study.tracking.mlflow_views import AUTHOR, COSTS, GENERAL, MOST_LISTED, TAG, Shown
from study.tracking.mlflow_writer import MlflowWriter
from study.trials.colours import COLOURS
from study.trials.spec import Kind
from tests.study.browser import NEEDS_A_BROWSER, browsing, serving
from tests.study.finished import SPACE, collected, dataset, finish
from tests.study.made_up import PROTOCOL, cards, play, rules
from tests.study.object_store import serve
from tests.study.stack import mlflow_server


def of_arms(*names: str) -> Space:
    return replace(SPACE, arms={name: SPACE.arms[name] for name in names})


def record(runs: MlflowRuns, folder: Path, space: Space, name: str, trials: int = 6) -> str:
    """A made-up study that has run to its end; the id of its run."""
    folder.mkdir()
    tracking = MlflowWriter(runs, name)
    tracking.begin(space, PROTOCOL | {"identity": name}, [])
    scheduler = StudyScheduler(rules(space=space, trials=trials), StudyJournal(folder), [tracking])
    finish(scheduler, folder, {"test": dataset()})
    tracking.finish("verdict", "models", "table", {}, [], [], cards)
    assert tracking.error == ""
    return tracking.parent_id


def connect(folder: Path, experiment: str = "made up") -> MlflowRuns:
    uri = mlflow_store.default_uri(folder)
    return MlflowRuns(uri, experiment=experiment, artifacts=folder / MLFLOW_ARTIFACTS)


def state(runs: MlflowRuns, key: str) -> dict[str, Any]:
    """A view as MLflow's page unpacks it, and its name."""
    view = json.loads(runs.client.get_experiment(runs.experiment_id).tags[TAG + key])
    packed = base64.b64decode(view["state"].removeprefix("deflate;"))
    found: dict[str, Any] = json.loads(zlib.decompress(packed))
    return found | {"name": view["name"], "createdAt": view["createdAt"]}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowRuns, str]:
    """A store with a study of two arms, and the id of its run."""
    folder = tmp_path_factory.mktemp("store")
    runs = connect(folder)
    return runs, record(runs, folder / "one", of_arms("layernorm", "lora"), "one")


def test_a_study_has_its_view_beside_those_of_all(stored: tuple[MlflowRuns, str]) -> None:
    runs, parent = stored
    own = state(runs, parent)
    assert own["name"] == "one"
    assert own["searchFilter"] == f"tags.`mlflow.parentRunId` = '{parent}'"
    general = {key: state(runs, key) for key in GENERAL}
    assert {key: view["name"] for key, view in general.items()} == GENERAL
    views = [*general.values(), own]
    assert views == sorted(views, key=lambda view: -view["createdAt"]), "as the page lists them"
    for view in views:
        columns = view["selectedColumns"]
        assert {"params.`arm`", "params.`lr`", "params.`lora.rank`"} <= {*columns}
        assert ("tags.`study`" in columns) is (view is not own), "its name says it"
        assert "params.`schedule`" not in columns, "it is the same everywhere"
        assert view["columnWidths"]["params.`lora.rank`"] >= 120, "six digits are whole"
        open_ = {s["uuid"] for s in view["compareRunSections"] if s["display"]}
        assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == open_


def test_a_trial_by_hand_is_in_no_view_of_studies(stored: tuple[MlflowRuns, str]) -> None:
    runs, _ = stored
    made = runs.client.create_run(runs.experiment_id, tags={"kind": BY_HAND, "arm": "lora"})
    kinds = {
        key: {run.data.tags["kind"] for run in runs.search(state(runs, key)["searchFilter"])}
        for key in GENERAL
    }
    runs.client.delete_run(made.info.run_id)
    both = {str(Kind.SEARCH), str(Kind.CONFIRM)}
    assert kinds == {"confirmed": {"confirm"}, "search": {"search"}, "costs": both}


def test_a_run_has_its_arms_colour_and_a_description_the_links(
    stored: tuple[MlflowRuns, str], tmp_path: Path
) -> None:
    runs, parent = stored
    found = collected(tmp_path, space=of_arms("layernorm", "lora"), trials=6)
    numbers = found.arm_numbers
    children = runs.trials(parent).values()
    colours = {run.data.tags["arm"]: run.data.tags[COLOUR] for run in children}
    assert {arm: colours[arm] for arm in numbers} == {arm: COLOURS[n] for arm, n in numbers.items()}
    assert len({*colours.values()}) == 3, "the base model has another"
    for run in children:
        assert run.data.tags["study"] == "one"
        assert all(len(f"{value:.15g}") <= len("-0.123456") for value in run.data.metrics.values())
        if run.data.tags["kind"] == Kind.UNTUNED:
            assert "lr" not in run.data.params, "it has none"
            continue
        assert len(run.data.params["lr"]) <= len("1.23456e-05")
        lr = float(run.data.params["lr"])
        assert run.data.metrics[LOG_LR] == pytest.approx(math.log10(lr), abs=1e-5)
    note = runs.client.get_run(parent).data.tags["mlflow.note.content"]
    assert note.startswith("**verdict**\n\nThis study: [report](#/experiments/")
    for key in (parent, *GENERAL):
        assert mlflow_views.address(runs.experiment_id, key).removeprefix("/") in note


def named(view: Mapping[str, Any]) -> dict[str, set[str]]:
    """Parameters and metrics that a view's columns and charts are of."""
    found: dict[str, set[str]] = {"params": set(), "metrics": set(), "tags": set()}
    for column in view["selectedColumns"]:
        kind, name = column.split(".", 1)
        found[kind].add(name.strip("`"))
    for chart in view["compareRunCharts"]:
        axes = [chart[axis]["key"] for axis in ("xaxis", "yaxis") if axis in chart]
        bars = [chart["metricKey"]] if "metricKey" in chart else []
        found["metrics"] |= {*axes, *bars, *chart.get("selectedMetrics", [])}
        found["params"] |= {*chart.get("selectedParams", [])}
    return found


def test_views_are_of_what_runs_have_whatever_names_mlflow_refuses(tmp_path: Path) -> None:
    arms = {"lora (`r`=8) <b>": SPACE.arms["lora"], "1% (`x`)": SPACE.arms["layernorm"]}
    runs, space = connect(tmp_path), replace(SPACE, arms=arms)
    tracking = MlflowWriter(runs, "one")
    tracking.begin(space, PROTOCOL, [])
    scheduler = StudyScheduler(rules(space=space, trials=6), StudyJournal(tmp_path), [tracking])
    scores = {"validation.overall": 50.0, "test.overall": 50.0, "ood.a (b).overall": 40.0}
    while (spec := scheduler.next()) is not None:
        play(scheduler, spec, dict.fromkeys(COSTS, 1.0), scores)
    tracking.finish("verdict", "models", "table", {}, [], [], cards)
    parent = tracking.parent_id
    data = [run.data for run in runs.trials(parent).values()]
    params = {name for each in data for name in each.params}
    metrics = {name for each in data for name in each.metrics}
    for key in (parent, *GENERAL):
        of = named(state(runs, key))
        assert (of["params"] - params, of["metrics"] - metrics) == (set(), set())
    assert (
        mlflow_names.key("ood.a (b).overall_percent") in named(state(runs, "confirmed"))["metrics"]
    )
    slots = {"fusion (b)": method("lora", rank=Choice(2, 4))}  # of a family of one's own
    odd = replace(SPACE, arms={"odd": Arm(lr=1e-3, **slots)})
    assert Shown.of_space(odd).settings == ("lr", mlflow_names.key("fusion (b).lora.rank"))


def test_views_are_renewed_when_there_are_other_arms(tmp_path: Path) -> None:
    other = connect(tmp_path)
    first = record(other, tmp_path / "one", of_arms("layernorm", "ia3"), "one")
    assert "params.`lora.rank`" not in state(other, "search")["selectedColumns"]
    record(other, tmp_path / "two", of_arms("ia3", "lora"), "two")
    assert "params.`lora.rank`" in state(other, "search")["selectedColumns"]
    assert "params.`lora.rank`" not in state(other, first)["selectedColumns"]


def test_a_study_of_an_earlier_version_gets_colours_and_views(
    stored: tuple[MlflowRuns, str],
) -> None:
    runs, parent = stored
    some = [*runs.trials(parent).values()][:3]
    before = {run.info.run_id: run.data.tags[COLOUR] for run in some}
    for run in before:
        runs.client.delete_tag(run, COLOUR)
        runs.client.delete_tag(run, "study")
    for key in (parent, *GENERAL):
        runs.client.delete_experiment_tag(runs.experiment_id, TAG + key)
    mlflow_views.renew(runs, parent, "one", SPACE.declared)
    tags = {run: runs.client.get_run(run).data.tags for run in before}
    assert {run: of_run[COLOUR] for run, of_run in tags.items()} == before
    assert {of_run["study"] for of_run in tags.values()} == {"one"}
    assert state(runs, parent)["name"] == "one" and state(runs, "costs")["compareRunCharts"]


def test_old_studies_leave_room_in_the_list_and_keep_their_addresses(
    stored: tuple[MlflowRuns, str],
) -> None:
    runs, parent = stored
    set_tag = runs.client.set_experiment_tag
    mine = {"name": "my own", "createdAt": 0, "state": "{}"}
    set_tag(runs.experiment_id, f"{TAG}mine", json.dumps(mine))
    for number in range(MOST_LISTED + 2):
        view = {"name": f"{number}", "createdAt": number + 1, "state": "{}", "author": AUTHOR}
        set_tag(runs.experiment_id, f"{TAG}{number}", json.dumps(view))
    mlflow_views.renew(runs, parent, "one", SPACE.declared)
    tags = runs.client.get_experiment(runs.experiment_id).tags
    listed = {name.removeprefix(TAG) for name, value in tags.items() if '"name"' in value}
    latest = {str(number) for number in range(3, MOST_LISTED + 2)}
    assert listed == {"mine", parent, *GENERAL, *latest}
    assert all(tags[f"{TAG}{number}"] == "{}" for number in range(3))


async def drawn(url: str, count: int, headers: Mapping[str, str]) -> list[tuple[str, int]]:
    """Title of each of ``count`` charts of a view, and how much is drawn in it."""
    async with browsing(url, (1600, 4000), headers) as tab:
        return await tab.cards(count)


def see_all_drawn(server: str, runs: MlflowRuns, parent: str, **headers: str) -> None:
    """In a browser, each view has its charts, and no chart is empty."""
    for key in (*GENERAL, parent):
        charts = len(state(runs, key)["compareRunCharts"])
        url = server + mlflow_views.address(runs.experiment_id, key)
        found = asyncio.run(drawn(url, charts, headers))
        assert len(found) == charts and all(number for _, number in found), (key, found)


@pytest.mark.slow
@NEEDS_A_BROWSER
def test_a_browser_draws_every_chart(tmp_path: Path) -> None:
    definition = StudyDefinition.parse(Settings(space="smoke"))
    folder = StudyFolder(storage=tmp_path, name="one")
    open_study(folder, definition, run=definition.space.arms, base={})
    runs = connect(tmp_path, "smoke")
    parent = record(runs, tmp_path / "journal", SPACE, identity(folder.path), trials=30)
    with serving(tmp_path) as server:
        see_all_drawn(server, runs, parent)


@pytest.mark.slow
@NEEDS_A_BROWSER
def test_on_a_server_with_accounts_whoever_may_read_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with serve("mlflow") as store, mlflow_server(tmp_path / "server", database, store) as server:
        server.start()
        for name, value in (server.client | store).items():
            monkeypatch.setenv(name, value)
        uri = server.client["MLFLOW_TRACKING_URI"]
        runs = MlflowRuns(uri, experiment="made up", artifacts=tmp_path)
        parent = record(runs, tmp_path / "one", of_arms("layernorm", "lora"), "one")
        before = state(runs, parent)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.admin)
        AuthServiceClient(uri).create_user("reader", "a long password")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a long password")
        mlflow_views.renew(runs, parent, "another name", SPACE.declared)
        assert state(runs, parent) == before, "who may only read changes nothing"
        word = base64.b64encode(b"reader:a long password").decode()
        see_all_drawn(uri, runs, parent, Authorization=f"Basic {word}")


def test_a_study_that_has_just_begun_shows_the_settings_that_its_runs_will_have(
    tmp_path: Path,
) -> None:
    runs = connect(tmp_path)
    tracking = MlflowWriter(runs, "one")
    tracking.begin(of_arms("layernorm", "lora"), PROTOCOL | {"identity": "one"}, [])
    tracking.close()
    assert tracking.error == ""
    for key in (tracking.parent_id, *GENERAL):
        columns = state(runs, key)["selectedColumns"]
        assert any("lora.rank" in column for column in columns), key
