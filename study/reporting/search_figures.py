"""Draws the figures of the report about the search: learning curves and rates, and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from study.analysis.result_types import StudyResults, TrialResult
from study.reporting.figures import WIDE, far_apart, panel, x_scale, y_scale
from study.reporting.svg import Figure, Scale, short, spanning
from study.trials import text
from study.trials.record import Outcome
from study.trials.spec import Kind
from study.trials.text import settings_text

LABEL = 18
"""Characters of a label beside an axis of the parallel coordinates."""
DRAWN = 100
"""Largest number of an arm's trials that a figure draws. More cover one another."""
NUMBERED = 20
"""Largest number of an arm's trials beside which their ranks are written."""


def learning_curves(results: StudyResults) -> list[Markup]:
    """Validation loss of search trials at their rungs; one panel for each arm."""
    trials = _searched(results)
    rungs = [rung for trial in trials for rung in trial.rungs]
    x = x_scale([rung.examples_seen for rung in rungs], log=True)
    y = y_scale([rung.validation_loss for rung in rungs], loss=True)
    if x is None or y is None:
        return []
    drawn = []
    for arm, i in results.arm_numbers.items():
        mine = [t for t in trials if t.arm == arm]
        if not mine:
            continue
        figure = panel(f"Learning curves of {arm}", x, y)
        figure.axes("examples seen", "validation loss", head=arm)
        for trial in _some(mine):
            points = [
                (float(rung.examples_seen), rung.validation_loss)
                for rung in trial.rungs
                if rung.validation_loss is not None
            ]
            if not points:
                continue
            whole = trial.outcome is Outcome.COMPLETE
            settings = settings_text(trial.parameters)
            tip = f"{trial.outcome}: {settings}; loss {points[-1][1]:.4f}"
            figure.line(points, arm=i, kind="" if whole else "stopped", tip=tip)
            figure.mark(points[-1], arm=i, tip=tip, hollow=not whole, size=3.5)
        drawn.append(figure.svg())
    return drawn


def learning_rates(results: StudyResults) -> list[Markup]:
    """Validation loss at the first rung, which all trials reach, by learning rate and rank; one
    panel for each arm."""
    tried = [
        trial
        for trial in _searched(results)
        if trial.lr and trial.rungs[0].validation_loss is not None
    ]
    x = x_scale([trial.lr for trial in tried], log=True)
    y = y_scale([trial.rungs[0].validation_loss for trial in tried], loss=True)
    if x is None or y is None:
        return []
    drawn = []
    for arm, i in results.arm_numbers.items():
        mine = _some([trial for trial in tried if trial.arm == arm])
        if not mine:
            continue
        figure = panel(f"Learning rates of {arm}", x, y)
        good = results.efficiency.learning_rates.get(arm)
        if good:
            start, end = max(x.low, good.low), min(x.high, good.high)
            figure.area((x(start), y.start), (x(end), y.end), kind="good", arm=i)
        figure.axes("learning rate", "loss at the first rung", head=arm)
        for trial in mine:
            loss = trial.rungs[0].validation_loss
            assert loss is not None
            settings = settings_text(trial.parameters)
            tip = f"{settings}; loss {loss:.4f} at the first rung, {trial.outcome}"
            whole = trial.outcome is Outcome.COMPLETE
            figure.mark((trial.lr, loss), arm=i, tip=tip, hollow=not whole)
            ranks = [
                str(v) for k, v in trial.parameters.items() if k.endswith(".rank") or ".rank." in k
            ]
            if ranks and len(mine) <= NUMBERED:
                at = (x(trial.lr) + 7, y(loss) + 3)
                figure.text(at, "/".join(ranks), kind="rank")
        drawn.append(figure.svg())
    return drawn


def parallel(results: StudyResults) -> list[Markup]:
    """Parallel coordinates: search trials as lines through their settings to their last
    validation losses."""
    index = results.arm_numbers
    known = [t for t in _searched(results) if t.rungs[-1].validation_loss is not None]
    trials = [t for arm in index for t in _some([t for t in known if t.arm == arm])]
    names = sorted({n for t in trials for n in t.parameters}, key=lambda n: (n == "lr", n))
    if len(trials) < 2:
        return []
    columns: list[tuple[str, list[Any]]] = [
        ("arm", [t.arm for t in trials]),
        *((name, [_shown(t.parameters.get(name)) for t in trials]) for name in names),
        ("examples", [t.rungs[-1].examples_seen for t in trials]),
        ("validation loss", [t.rungs[-1].validation_loss for t in trials]),
    ]
    width, height = max(WIDE, 110 * len(columns)), 320
    flat = Scale(low=0, high=1, start=0, end=1)
    figure = Figure(title="All search trials", width=width, height=height, x=flat, y=flat)
    across = [60 + i * (width - 150) / (len(columns) - 1) for i in range(len(columns))]
    axes = [_column(values, height) for _, values in columns]
    for number, trial in enumerate(trials):
        pixels = [(at, places[number]) for at, (places, _) in zip(across, axes, strict=True)]
        settings = settings_text(trial.parameters)
        loss = trial.rungs[-1].validation_loss
        tip = f"{trial.arm}, {trial.outcome}: {settings}; loss {loss:.4f}"
        kind = "line" if trial.outcome is Outcome.COMPLETE else "line stopped"
        figure.path(pixels, arm=index[trial.arm], kind=kind, tip=tip)
    for at, (name, _), (_, labels) in zip(across, columns, axes, strict=True):
        figure.rule((at, 40), (at, height - 30), kind="axis")
        figure.text((at, 24), name, kind="label", anchor="middle")
        for place, label in labels:
            figure.text((at + 6, place + 4), label, kind="tick over")
    return [figure.svg()]


def leaves_some_out(results: StudyResults) -> bool:
    """Whether the figures draw only some of an arm's trials."""
    counts = Counter(trial.arm for trial in _searched(results))
    return max(counts.values(), default=0) > DRAWN


def _searched(results: StudyResults) -> list[TrialResult]:
    """The search trials that reported a rung."""
    return [trial for trial in results.trials if trial.kind is Kind.SEARCH and trial.rungs]


def _some(trials: Sequence[TrialResult]) -> Sequence[TrialResult]:
    """At most ``DRAWN`` of an arm's trials, in their order: the one with the lowest last loss, the
    one with the highest, and others evenly between them by rank."""
    if len(trials) <= DRAWN:
        return trials
    losses = [trial.rungs[-1].validation_loss for trial in trials]
    ranked = sorted(range(len(trials)), key=lambda i: (losses[i] is None, losses[i]))
    step = (len(trials) - 1) / (DRAWN - 1)
    return [trials[i] for i in sorted(ranked[round(n * step)] for n in range(DRAWN))]


def _shown(value: Any) -> Any:
    """A setting as its axis shows it: a list, which is a tuple in JSON, as text."""
    return text.short(value) if isinstance(value, list | tuple) else value


def _cut(label: str) -> str:
    """A label, cut where it would reach the next axis."""
    return label if len(label) <= LABEL else f"{label[: LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


def _column(values: Sequence[Any], height: float) -> tuple[list[float], list[tuple[float, str]]]:
    """One axis of the parallel coordinates: the pixel of each value, absent ones lowest, and the
    labels with their pixels."""
    lacking = height - 18
    present = [v for v in values if v is not None]
    numbers = [v for v in present if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(present) and len(set(numbers)) > 6:
        scale = spanning(numbers, height - 40, 50, log=far_apart(numbers), room=0.02)
        assert scale is not None
        places = [lacking if v is None else scale(v) for v in values]
        labels = [(scale(tick), short(tick)) for tick in scale.ticks(4)]
    else:
        order = sorted(set(present), key=lambda v: (str(type(v)), v))
        step = (height - 100) / max(len(order) - 1, 1)
        spots = {v: height - 50 - i * step for i, v in enumerate(order)}
        places = [lacking if v is None else spots[v] for v in values]
        labels = [(at, f"{v:g}" if v in numbers else _cut(str(v))) for v, at in spots.items()]
    if len(present) < len(values):
        labels.append((lacking, "none"))
    return places, labels
