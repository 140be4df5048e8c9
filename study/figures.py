"""The figures of the report, each made of what ``results.json`` holds and of nothing else.

A figure is a list of panels, as SVG; an empty list means that there is nothing to draw. An arm has
the same number, and with it colour and shape, in all of them: its place in ``arms``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from study.efficiency import COSTS
from study.svg import Figure, Scale, short, spanning

Results = Mapping[str, Any]
PANEL_WIDTH, PANEL_HEIGHT = 340, 250
WIDE = 1020
"""Three panels: so that letters are as large in all figures."""
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 28, 44
"""Margins of a panel in pixels, for labels."""
ROW = 30
"""Height of a row of intervals."""


def legend(results: Results) -> list[tuple[int, str, Markup]]:
    """Each arm's number, name and shape."""
    flat = Scale(low=0, high=1, start=0, end=16)
    found = []
    for i, arm in enumerate(results["arms"]):
        figure = Figure(title=arm["arm"], width=16, height=16, x=flat, y=flat)
        figure.mark((0.5, 0.5), arm=i, tip="")
        found.append((i, arm["arm"], figure.svg()))
    return found


def scores(results: Results) -> list[Markup]:
    """Test accuracy of each arm with its interval, seeds, and baselines; a panel a part."""
    arms = [(i, arm) for i, arm in enumerate(results["arms"]) if arm["test"]]
    drawn = []
    for part, name_of_part in results["shown"].items():
        rows = [(i, arm) for i, arm in arms if arm["test"][part]["low"] is not None]
        bases = {name: (s or {}).get(part) for name, s in results["baselines"].items()}
        seeds = [seed[part] for _, arm in rows for seed in arm["seeds"]]
        ends = [arm["test"][part][end] for _, arm in rows for end in ("low", "high")]
        left = 20 + 7 * max((len(arm["arm"]) for _, arm in rows), default=0)
        height = TOP + ROW * len(rows) + BOTTOM + 14
        x = spanning([*ends, *seeds, *bases.values()], left, PANEL_WIDTH - RIGHT)
        if x is None or not rows:
            continue
        y = Scale(low=len(rows) - 0.5, high=-0.5, start=height - BOTTOM, end=TOP + 14)
        title = f"On test, {name_of_part}"
        figure = Figure(title=title, width=PANEL_WIDTH, height=height, x=x, y=y)
        figure.axes(name_of_part, "", y_ticks=False)
        figure.text((0, 14), part, kind="head")
        lowest_first = sorted((value, name) for name, value in bases.items() if value is not None)
        for place, (value, name) in enumerate(lowest_first):
            figure.rule((x(value), y.start), (x(value), y.end - 2), kind="base")
            # Side by side where they are close.
            anchor = "end" if place == 0 and len(lowest_first) > 1 else "start"
            figure.text((x(value), y.end - 6), name, kind="tick", anchor=anchor)
        for row, (i, arm) in enumerate(rows):
            found = arm["test"][part]
            tip = f"{arm['arm']}, {part}: {_interval(found)}"
            figure.text((left - 10, y(row) + 4), arm["arm"], kind="name", anchor="end")
            for seed in arm["seeds"]:
                at = x(seed[part])
                figure.path([(at, y(row) + 6), (at, y(row) + 11)], arm=i, kind="line thin")
            figure.line([(found["low"], row), (found["high"], row)], arm=i, kind="wide", tip=tip)
            figure.mark((found["mean"], row), arm=i, tip=tip)
        drawn.append(figure.svg())
    return drawn


def differences(results: Results) -> list[Markup]:
    """Each pair's difference in overall accuracy with its interval, and the margin."""
    pairs = [(c["first"], c["second"], c["parts"]["overall"]) for c in results["comparisons"]]
    index = _index(results)
    if not pairs:
        return []
    margin = pairs[0][2]["margin"]
    ends = [c["difference"][end] for _, _, c in pairs for end in ("low", "high")]
    left = 20 + 7 * max(len(f"{first} - {second}") for first, second, _ in pairs)
    width, height = WIDE, TOP + ROW * len(pairs) + BOTTOM
    x = spanning([*ends, -1.5 * margin, 1.5 * margin], left, width - RIGHT)
    assert x is not None
    y = Scale(low=len(pairs) - 0.5, high=-0.5, start=height - BOTTOM, end=TOP)
    figure = Figure(title="Differences between arms", width=width, height=height, x=x, y=y)
    figure.area((x(-margin), y.start), (x(margin), y.end), kind="within")
    figure.axes("difference in accuracy, points (shaded: the margin)", "", y_ticks=False)
    figure.rule((x(0), y.start), (x(0), y.end), kind="axis")
    for row, (first, second, c) in enumerate(pairs):
        figure.text((left - 10, y(row) + 4), f"{first} \u2212 {second}", kind="name", anchor="end")
        found = c["difference"]
        tip = f"{first} minus {second}: {_interval(found)}, Holm p = {c['p_holm']:.3g}"
        arm = index[first]
        figure.line([(found["low"], row), (found["high"], row)], arm=arm, kind="wide", tip=tip)
        figure.mark((found["mean"], row), arm=arm, tip=tip, hollow=c["finding"] != "better")
    return [figure.svg()]


def pareto(results: Results) -> list[Markup]:
    """Test accuracy against each cost; the front as a step."""
    arms = [(i, arm) for i, arm in enumerate(results["arms"]) if arm["test"]]
    drawn = []
    # An adapter's size is that of its parameters: it would be the same picture twice.
    for cost, label in COSTS.items():
        if cost == "adapter_mib":
            continue
        values = [(i, arm, arm["costs"].get(cost)) for i, arm in arms]
        points = [(i, arm, value) for i, arm, value in values if value is not None]
        x = _x([v for _, _, v in points], log=_far_apart([v for _, _, v in points]))
        ends = [arm["test"]["overall"][e] for _, arm, _ in points for e in ("low", "high")]
        y = _y(ends)
        if x is None or y is None:
            continue
        figure = _panel(f"Accuracy against {label}", x, y)
        figure.axes(label, "test accuracy, %")
        front = set(results["efficiency"]["pareto"][cost])
        steps = sorted((v, a["test"]["overall"]["mean"]) for _, a, v in points if a["arm"] in front)
        pixels = []
        for (value, mean), (later, _) in zip(steps, [*steps[1:], (x.high, 0.0)], strict=True):
            pixels += [(x(value), y(mean)), (x(later), y(mean))]
        for start, end in itertools.pairwise(pixels):
            figure.rule(start, end, kind="front")
        for i, arm, value in points:
            found = arm["test"]["overall"]
            tip = f"{arm['arm']}: {_interval(found)} for {value:,.4g} {label}"
            figure.line([(value, found["low"]), (value, found["high"])], arm=i, kind="thin")
            figure.mark((value, found["mean"]), arm=i, tip=tip, hollow=arm["arm"] not in front)
        drawn.append(figure.svg())
    return drawn


def budget(results: Results) -> list[Markup]:
    """The score that a search is expected to end with, against what it may spend."""
    found = results["efficiency"]["budget"]
    curves = {arm: curve for arm, curve in (found or {"arms": {}})["arms"].items() if curve}
    width, height = WIDE, 320
    seconds = [p["seconds"] for curve in curves.values() for p in curve]
    x = spanning(seconds, LEFT, width - RIGHT, log=True, room=0.03)
    ends = [p[end] for curve in curves.values() for p in curve for end in ("low", "high")]
    y = spanning(ends, height - BOTTOM, TOP)
    if x is None or y is None:
        return []
    title = "Expected validation accuracy against search budget"
    figure = Figure(title=title, width=width, height=height, x=x, y=y)
    figure.axes("search budget of the arm, device-seconds", "validation accuracy, %")
    index = _index(results)
    for arm, curve in curves.items():
        there = [(x(p["seconds"]), y(p["high"])) for p in curve]
        back = [(x(p["seconds"]), y(p["low"])) for p in reversed(curve)]
        figure.path([*there, *back], arm=index[arm], kind="band")
    for arm, curve in curves.items():
        figure.line([(p["seconds"], p["mean"]) for p in curve], arm=index[arm])
        for p in curve:
            tip = f"{arm}: {p['mean']:.1f}% ({p['low']:.1f} to {p['high']:.1f}) for "
            figure.mark(
                (p["seconds"], p["mean"]),
                arm=index[arm],
                tip=f"{tip}{p['seconds']:,.0f} device-seconds",
                size=3,
            )
    return [figure.svg()]


def learning_curves(results: Results) -> list[Markup]:
    """Validation loss of every search trial at its rungs; a panel an arm."""
    trials = [t for t in results["trials"] if t["kind"] == "search" and t["rungs"]]
    rungs = [rung for trial in trials for rung in trial["rungs"]]
    x = _x([rung["examples_seen"] for rung in rungs], log=True)
    y = _y([rung["validation_loss"] for rung in rungs], loss=True)
    if x is None or y is None:
        return []
    drawn = []
    for arm, i in _index(results).items():
        mine = [t for t in trials if t["arm"] == arm]
        if not mine:
            continue
        figure = _panel(f"Learning curves of {arm}", x, y)
        figure.axes("examples seen", "validation loss", head=arm)
        for trial in mine:
            points = [
                (r["examples_seen"], r["validation_loss"])
                for r in trial["rungs"]
                if r["validation_loss"] is not None
            ]
            if not points:
                continue
            whole = trial["outcome"] == "complete"
            tip = f"{trial['outcome']}: {_settings(trial)}; loss {points[-1][1]:.4f}"
            figure.line(points, arm=i, kind="" if whole else "stopped", tip=tip)
            figure.mark(points[-1], arm=i, tip=tip, hollow=not whole, size=3.5)
        drawn.append(figure.svg())
    return drawn


def learning_rates(results: Results) -> list[Markup]:
    """Validation loss at the first rung, which all trials reach, by learning rate and rank."""
    trials = [t for t in results["trials"] if t["kind"] == "search" and t["rungs"]]
    tried = [t for t in trials if t["lr"] and t["rungs"][0]["validation_loss"] is not None]
    x = _x([t["lr"] for t in tried], log=True)
    y = _y([t["rungs"][0]["validation_loss"] for t in tried], loss=True)
    if x is None or y is None:
        return []
    drawn = []
    for arm, i in _index(results).items():
        mine = [t for t in tried if t["arm"] == arm]
        if not mine:
            continue
        figure = _panel(f"Learning rates of {arm}", x, y)
        good = results["efficiency"]["learning_rates"].get(arm)
        if good:
            start, end = max(x.low, good["low"]), min(x.high, good["high"])
            figure.area((x(start), y.start), (x(end), y.end), kind="good", arm=i)
        figure.axes("learning rate", "loss at the first rung", head=arm)
        for trial in mine:
            loss = trial["rungs"][0]["validation_loss"]
            tip = f"{_settings(trial)}; loss {loss:.4f} at the first rung, {trial['outcome']}"
            whole = trial["outcome"] == "complete"
            figure.mark((trial["lr"], loss), arm=i, tip=tip, hollow=not whole)
            ranks = [str(v) for k, v in trial["parameters"].items() if k.endswith(".rank")]
            if ranks:
                at = (x(trial["lr"]) + 7, y(loss) + 3)
                figure.text(at, "/".join(ranks), kind="rank")
        drawn.append(figure.svg())
    return drawn


def parallel(results: Results) -> list[Markup]:
    """Every search trial as a line through its settings to its last validation loss."""
    trials = [t for t in results["trials"] if t["kind"] == "search" and t["rungs"]]
    trials = [t for t in trials if t["rungs"][-1]["validation_loss"] is not None]
    index = _index(results)
    names = sorted({n for t in trials for n in t["parameters"]}, key=lambda n: (n == "lr", n))
    if len(trials) < 2:
        return []
    columns: list[tuple[str, list[Any]]] = [
        ("arm", [t["arm"] for t in trials]),
        *((name, [t["parameters"].get(name) for t in trials]) for name in names),
        ("examples", [t["rungs"][-1]["examples_seen"] for t in trials]),
        ("validation loss", [t["rungs"][-1]["validation_loss"] for t in trials]),
    ]
    width, height = max(WIDE, 110 * len(columns)), 320
    flat = Scale(low=0, high=1, start=0, end=1)
    figure = Figure(title="All search trials", width=width, height=height, x=flat, y=flat)
    across = [60 + i * (width - 150) / (len(columns) - 1) for i in range(len(columns))]
    axes = [_column(values, height) for _, values in columns]
    for number, trial in enumerate(trials):
        pixels = [(at, places[number]) for at, (places, _) in zip(across, axes, strict=True)]
        whole = trial["outcome"] == "complete"
        loss = trial["rungs"][-1]["validation_loss"]
        tip = f"{trial['arm']}, {trial['outcome']}: {_settings(trial)}; loss {loss:.4f}"
        kind = "line" if whole else "line stopped"
        figure.path(pixels, arm=index[trial["arm"]], kind=kind, tip=tip)
    for at, (name, _), (_, labels) in zip(across, columns, axes, strict=True):
        figure.rule((at, 40), (at, height - 30), kind="axis")
        figure.text((at, 24), name, kind="label", anchor="middle")
        for place, label in labels:
            figure.text((at + 6, place + 4), label, kind="tick over")
    return [figure.svg()]


def _column(values: Sequence[Any], height: float) -> tuple[list[float], list[tuple[float, str]]]:
    """One axis of the parallel coordinates: the pixel of each value, absent ones lowest, and
    labels."""
    lacking = height - 18
    there = [v for v in values if v is not None]
    numbers = [v for v in there if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(there) and len(set(numbers)) > 6:
        scale = spanning(numbers, height - 40, 50, log=_far_apart(numbers), room=0.02)
        assert scale is not None
        places = [lacking if v is None else scale(v) for v in values]
        labels = [(scale(tick), short(tick)) for tick in scale.ticks(4)]
    else:
        order = sorted(set(there), key=lambda v: (str(type(v)), v))
        step = (height - 100) / max(len(order) - 1, 1)
        spots = {v: height - 50 - i * step for i, v in enumerate(order)}
        places = [lacking if v is None else spots[v] for v in values]
        labels = [(at, f"{v:g}" if v in numbers else str(v)) for v, at in spots.items()]
    if len(there) < len(values):
        labels.append((lacking, "none"))
    return places, labels


def _panel(title: str, x: Scale, y: Scale) -> Figure:
    return Figure(title=title, width=PANEL_WIDTH, height=PANEL_HEIGHT, x=x, y=y)


def _x(values: Sequence[float], *, log: bool) -> Scale | None:
    return spanning(values, LEFT, PANEL_WIDTH - RIGHT, log=log)


def _y(values: Sequence[float | None], *, loss: bool = False) -> Scale | None:
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    return spanning(numbers, PANEL_HEIGHT - BOTTOM, TOP, log=loss and _far_apart(numbers))


def _far_apart(values: Sequence[float]) -> bool:
    """A linear scale would show the largest of them only."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 3


def _index(results: Results) -> dict[str, int]:
    return {arm["arm"]: i for i, arm in enumerate(results["arms"])}


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def _settings(trial: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in trial["parameters"].items()
    )
