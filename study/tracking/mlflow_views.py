"""Views that are prepared in MLflow: columns, order and charts that answer what a study asks.

An experiment has the views *Confirmed*, *Search* and *Costs* of all its studies, and one of each
study. MLflow's page lists them under *Views*, and each has an address. It keeps a view as a tag of
the experiment. The form of these tags is MLflow's own and not promised: a version that has another
one shows its usual page instead, and nothing else is lost.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from study.config import spaces
from study.tracking import mlflow_names
from study.tracking.mlflow_runs import (
    BY_HAND,
    COLOUR,
    LOG_LR,
    STUDY,
    TRAINING,
    MlflowRuns,
    log_lr,
)
from study.trials.colours import UNTUNED, arm_colours
from study.trials.spec import Kind
from trainables.secrecy import without_secrets
from trainables.stored_json import object_in

if TYPE_CHECKING:
    from mlflow.entities import Run

    from search_spaces.declare import Space

TAG = "mlflow.sharedViewState."
"""Start of the name of an experiment's tag that holds a view; the view's key follows."""
GENERAL = {"confirmed": "Confirmed", "search": "Search", "costs": "Costs"}
"""Key -> name of the views of all studies of an experiment."""
MOST_LISTED = 20
"""Number of the latest studies whose views are listed. MLflow lists 40 views, those of its users
included; those of older studies keep their addresses."""
AUTHOR = "medvlm-study"
"""Mark of the views that this project wrote."""
REFUSALS = ("PERMISSION_DENIED", "INVALID_PARAMETER_VALUE")
"""Codes of errors of a server that does not take a view or a tag, or not from this user."""
MOST_RUNS = 300
"""Number of the latest runs by which the columns and charts of the general views are chosen."""
LOSS, SCORE = "validation_loss", "test.overall_percent"
"""Metrics of a trial by which views are sorted."""
COSTS = ("seconds", "peak_memory_gib", "trained_parameters")
"""Metrics of a trial's costs."""
NO_SETTINGS = {"arm", "lr", "seed", "max_examples", "batch_size"}
"""Parameters of a run that are no settings of its arm's methods, as those of its training."""
REST = ("Model metrics", "System metrics")
"""Sections into which MLflow puts a chart of each metric that has none. They are closed."""
METRIC_WIDTH = 170
"""Width in pixels of a metric's column, in which its name is whole."""
SETTING_WIDTH, LETTER_WIDTH = 120, 7
"""Least width in pixels of a setting's column, in which six digits and an exponent are whole, and
the width of a letter of its name."""
COLUMNS, CARD_HEIGHT = 2, 320
"""Number of charts beside one another, and the height of each in pixels."""

Card = dict[str, Any]
"""One chart, as MLflow has it."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Settings and measures of the runs that a view is of."""

    settings: tuple[str, ...]
    """Parameters that are settings of arms, ``lr`` first."""
    groups: tuple[tuple[str, ...], ...]
    """Settings of methods, those that the same arms have together."""
    measures: tuple[str, ...]
    """Metrics of confirmed runs that are scores on a test split, besides ``SCORE``."""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Shown:
        """Settings and measures of runs."""
        from trainables.engine.training_settings import TrainingSettings

        training = {*asdict(TrainingSettings()), "batch_size"}
        values: dict[str, set[str]] = {}
        arms: dict[str, set[str]] = {}
        for run in (run for run in runs if _kind(run) == Kind.SEARCH):
            for name, value in run.data.params.items():
                values.setdefault(name, set()).add(value)
                arms.setdefault(name, set()).add(run.data.tags["arm"])
        varied = sorted(name for name in training & {*values} if len(values[name]) > 1)
        own = sorted(
            name
            for name in values
            if name not in training | NO_SETTINGS and not name.startswith("recipe.")
        )
        scores = {
            name
            for run in runs
            if _kind(run) == Kind.CONFIRM
            for name in run.data.metrics
            if name.startswith(("test.", "ood."))
        }
        return cls(
            settings=("lr", *own, *varied),
            groups=_together(own, arms),
            measures=tuple(sorted(scores - {SCORE})),
        )

    @classmethod
    def of_space(cls, space: Space) -> Shown:
        """Settings that the runs of a study of this space will have, before there are any."""
        arms: dict[str, set[str]] = {}
        for arm, declared in space.arms.items():
            for name in spaces.ranges(declared):
                arms.setdefault(mlflow_names.key(name), set()).add(arm)
        own = sorted(arms.keys() - {*spaces.TRAINING, "lr"})
        varied = sorted(arms.keys() & {*spaces.TRAINING})
        return cls(settings=("lr", *own, *varied), groups=_together(own, arms), measures=())


def _together(settings: Iterable[str], arms: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    """Settings in groups, each of those that the same arms have."""
    groups: dict[frozenset[str], list[str]] = {}
    for name in settings:
        groups.setdefault(frozenset(arms[name]), []).append(name)
    return tuple(map(tuple, groups.values()))


def address(experiment_id: str, key: str, *, charts: bool = True) -> str:
    """Address of a view on an MLflow server, after the server's own: its charts, or its table."""
    shown = "CHART" if charts else "TABLE"
    asked = f"viewStateShareKey={key}&compareRunsMode={shown}&{TRAINING}"
    return f"/#/experiments/{experiment_id}/runs?{asked}"


def links(runs: MlflowRuns, parent_id: str, report: str) -> str:
    """Links, in Markdown, from a study's run to its report, an artifact, and to the views."""
    experiment = runs.experiment_id
    pages = {
        "report": runs.page(parent_id, report),
        "charts": address(experiment, parent_id),
        "table": address(experiment, parent_id, charts=False),
    }
    general = {name: address(experiment, key) for key, name in GENERAL.items()}
    of_study, of_all = (
        ", ".join(f"[{name}]({to.removeprefix('/')})" for name, to in pages.items())
        for pages in (pages, general)
    )
    return f"This study: {of_study}. All studies of its search space: {of_all}."


def prepare(runs: MlflowRuns, parent_id: str, study: str, space: Space) -> None:
    """Write the views of a study that begins, as far as they are missing."""
    shown = Shown.of_space(space)
    there = runs.client.get_experiment(runs.experiment_id).tags
    _write(
        runs,
        [v for v in _views(parent_id, study, shown, shown) if TAG + v.key not in there],
    )


def renew(runs: MlflowRuns, parent_id: str, study: str, arms: Sequence[str]) -> None:
    """Write the views of a study and of all studies of its experiment, by the arms and measures
    that their runs have now. Runs of earlier versions of this project get what views show of them:
    their arm's colour, by ``arms``, which are all of the space, and the study's name."""
    own = [*runs.trials(parent_id).values()]
    latest = runs.search("tags.kind != 'study'", most=MOST_RUNS)
    _mark(runs, own, study, run_colours(arms))
    _write(runs, _views(parent_id, study, Shown.of(own), Shown.of(latest)))
    _set_tags(runs, _unlisted(runs.client.get_experiment(runs.experiment_id).tags))


def renew_if_allowed(runs: MlflowRuns, parent_id: str, study: str, arms: Sequence[str]) -> str:
    """Renew the views of a study, as ``renew`` does, if this user may. Return why not, in one line;
    empty if they were renewed."""
    from mlflow.exceptions import MlflowException

    try:
        renew(runs, parent_id, study, arms)
    except MlflowException as error:
        return without_secrets(str(error)).splitlines()[0]
    return ""


def _write(runs: MlflowRuns, views: Iterable[_View]) -> None:
    """Write views."""
    now = int(time.time() * 1000)  # MLflow lists the newest first
    _set_tags(runs, {TAG + v.key: v.text(created=now - place) for place, v in enumerate(views)})


def _unlisted(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of the views of studies that are listed and too old for it, with their new values."""
    listed = {}
    for name, value in tags.items():
        if name.startswith(TAG) and name.removeprefix(TAG) not in GENERAL and AUTHOR in value:
            view = object_in(value)
            ours = view.get("author") == AUTHOR and isinstance(view.get("state"), str)
            if ours and isinstance(view.get("createdAt"), int):
                listed[name] = view
    oldest = sorted(listed, key=lambda name: listed[name]["createdAt"])[:-MOST_LISTED]
    return {name: listed[name]["state"] for name in oldest}


def _set_tags(runs: MlflowRuns, tags: Mapping[str, str]) -> None:
    """Set tags of the experiment, unless the server refuses them or this user."""
    from mlflow.exceptions import MlflowException

    for name, value in tags.items():
        try:
            runs.client.set_experiment_tag(runs.experiment_id, name, value)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise


def run_colours(arms: Iterable[str]) -> dict[str, str]:
    """Arm, and the untuned model -> colour of its runs; ``arms`` are all of the space."""
    return {**arm_colours(arms), str(Kind.UNTUNED): UNTUNED}


def _mark(
    runs: MlflowRuns, children: Sequence[Run], study: str, colours: Mapping[str, str]
) -> None:
    """Give the runs of a study's trials the colour of their arm and the study's name, where they
    lack them, and the logarithm of their learning rate to those that had no colour; nothing if the
    server refuses it, or this user."""
    from mlflow.exceptions import MlflowException

    for run in children:
        had, arm = run.data.tags, run.data.tags["arm"]
        should = {COLOUR: colours.get(arm, had.get(COLOUR, UNTUNED)), STUDY: study}
        tags = {name: value for name, value in should.items() if had.get(name) != value}
        trained = "lr" in run.data.params and _kind(run) != Kind.UNTUNED
        lr = [float(run.data.params["lr"])] if trained and COLOUR not in had else []
        metrics = [log_lr(value, run.info.start_time) for value in lr]
        try:
            runs.log(run.info.run_id, metrics=metrics, tags=tags)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            return


def _kind(run: Run) -> str:
    return str(run.data.tags.get("kind", ""))


@dataclass(frozen=True, kw_only=True)
class _View:
    """One view."""

    key: str
    name: str
    runs: str
    """Filter of its runs, as MLflow's search takes it."""
    order: str
    """Metric by which they are sorted."""
    ascending: bool
    columns: Sequence[str]
    sections: Mapping[str, Sequence[Card]]
    """Title of a section -> its charts."""

    def text(self, *, created: int) -> str:
        """Value of the tag. ``created`` is the time, in milliseconds since 1970, by which MLflow
        sorts views."""
        sections = [_section(name, display=True) for name in self.sections]
        state = {
            "searchFilter": self.runs,
            "orderByKey": f"metrics.`{self.order}`",
            "orderByAsc": self.ascending,
            "selectedColumns": list(self.columns),
            "columnOrder": list(self.columns),
            "columnWidths": _widths(self.columns),
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": [
                {"uuid": f"{name}-{n}", "metricSectionId": name, **card}
                for name, cards in self.sections.items()
                for n, card in enumerate(cards)
            ],
            "compareRunSections": sections + [_section(name, display=False) for name in REST],
            "isAccordionReordered": True,  # else MLflow sorts sections by their names
        }
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        view = {"name": self.name, "createdAt": created, "state": f"deflate;{packed}"}
        return json.dumps(view | {"author": AUTHOR})


def _views(parent_id: str, study: str, own: Shown, all_: Shown) -> list[_View]:
    """The views, in the order in which they are listed; ``own`` is what the study's runs have,
    ``all_`` what those of all studies have."""
    confirmed, search, costs = GENERAL

    def general(key: str, kind: str, order: str, shown: Shown, **sections: list[Card]) -> _View:
        return _View(
            key=key,
            name=GENERAL[key],
            runs=kind,
            order=order,
            ascending=order != SCORE,
            columns=_columns(shown, order, several=True),
            sections=sections,
        )

    return [
        general(
            confirmed,
            f"tags.kind = '{Kind.CONFIRM}'",
            SCORE,
            all_,
            Confirmed=_confirmed(),
            Measures=[_bar(name) for name in all_.measures],
        ),
        general(search, f"tags.kind = '{Kind.SEARCH}'", LOSS, all_, Search=_searched(all_)),
        general(
            costs,
            " and ".join(f"tags.kind != '{kind}'" for kind in (Kind.UNTUNED, "study", BY_HAND)),
            LOSS,
            all_,
            Costs=_costs(),
        ),
        _View(
            key=parent_id,
            name=study,
            runs=f"tags.`mlflow.parentRunId` = '{parent_id}'",
            order=SCORE,
            ascending=False,
            columns=_columns(own, SCORE),
            sections={
                GENERAL[confirmed]: _confirmed(),
                GENERAL[search]: _searched(own),
                GENERAL[costs]: _costs(),
            },
        ),
    ]


def _columns(shown: Shown, order: str, *, several: bool = False) -> list[str]:
    """Columns of a view's table, as MLflow names them. With ``several`` it is of several studies,
    and says of each run whose it is."""
    first = [SCORE, LOSS] if order == SCORE else [LOSS, SCORE]
    return [
        *([f"tags.`{STUDY}`"] if several else []),
        "params.`arm`",
        *(f"params.`{name}`" for name in shown.settings),
        *(f"metrics.`{name}`" for name in first),
        *(f"tags.`{name}`" for name in ("outcome", "kind")),
    ]


def _widths(columns: Sequence[str]) -> dict[str, int]:
    """Widths of columns, in pixels, where they differ from MLflow's own. The letters of ``params``
    are the room around a name."""
    settings = [c for c in columns if c.startswith("params.") and c != "params.`arm`"]
    return {
        **{column: max(SETTING_WIDTH, LETTER_WIDTH * len(column)) for column in settings},
        **{f"metrics.`{name}`": METRIC_WIDTH for name in (LOSS, SCORE)},
    }


def _confirmed() -> list[Card]:
    """Scores of each seed of each arm, and what they cost."""
    return [
        _bar(SCORE),
        *(_scatter(cost, SCORE) for cost in COSTS),
    ]


def _searched(shown: Shown) -> list[Card]:
    """Losses of the trials of a search by their settings and their examples."""
    return [
        _scatter(LOG_LR, LOSS),
        _line(LOSS),
        _scatter("examples_seen", LOSS),
        _parallel(["arm"], [LOG_LR, LOSS]),
        *(_parallel([*names], [LOG_LR, LOSS]) for names in shown.groups),
    ]


def _costs() -> list[Card]:
    """Losses of trials by what they cost, and the costs beside each other."""
    return [
        *(_scatter(cost, LOSS) for cost in COSTS),
        _scatter("peak_memory_gib", "seconds"),
        _parallel(["arm"], [*COSTS, LOSS]),
    ]


def _section(name: str, *, display: bool) -> dict[str, Any]:
    marks = dict.fromkeys(("isReordered", "deleted", "isGenerated"), False)
    size = {"columns": COLUMNS, "cardHeight": CARD_HEIGHT}
    return {"uuid": name, "name": name, "display": display, **size, **marks}


def _card(kind: str, **more: Any) -> Card:
    """A chart of up to a hundred runs."""
    return {
        "type": kind,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
        **more,
    }


def _bar(metric: str) -> Card:
    """A bar for each run."""
    return _card("BAR", metricKey=metric)


def _scatter(x: str, y: str) -> Card:
    """A point for each run, at two metrics."""
    return _card("SCATTER", xaxis={"key": x, "type": "METRIC"}, yaxis={"key": y, "type": "METRIC"})


def _line(metric: str) -> Card:
    """A line for each run through the values of a metric by examples seen, which rungs multiply."""
    return _card(
        "LINE",
        metricKey=metric,
        selectedMetricKeys=[metric],
        xAxisKey="step",
        xAxisScaleType="log",
        scaleType="log",
        lineSmoothness=0,
        displayPoints=True,
        useGlobalXaxisKey=False,
        useGlobalLineSmoothing=False,
        range={},
    )


def _parallel(params: Sequence[str], metrics: Sequence[str]) -> Card:
    """A line for each run that has all these parameters and metrics, from each to the next."""
    return _card(
        "PARALLEL", selectedParams=[*params], selectedMetrics=[*metrics], showAllRuns=False
    )
