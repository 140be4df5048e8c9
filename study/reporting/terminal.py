"""Prints the results of a study as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from study.config import goals
from study.trials.text import short


def show_results(console: Console, results: Mapping[str, Any]) -> None:
    """Print the confirmed arms, baselines, comparisons, other datasets, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    table.add_column("best settings")
    shown = results["shown"]
    for column in (*shown.values(), "trained", "seconds", "GiB"):
        table.add_column(column, justify="right")
    for arm in results["arms"]:
        best = arm["best"] or {"parameters": {}}
        settings = " ".join(f"{k}={short(v)}" for k, v in best["parameters"].items())
        if arm["test"] is None:
            table.add_row(arm["arm"], settings, "not confirmed")
            continue
        costs = arm["costs"]
        table.add_row(
            arm["arm"] + (" (collapsed)" if arm["collapsed"] else ""),
            settings,
            *(_interval(arm["test"][measure]) for measure in shown),
            f"{costs['trained_parameters']:,.0f}",
            f"{costs['seconds']:.1f}",
            f"{costs['peak_memory_gib']:.2f}",
        )
    for name in ("untuned", "majority"):
        scores = results["baselines"][name]
        if scores:
            note = {"untuned": "the base model as it is", "majority": "the most frequent answer"}
            parts = (scores[measure] for measure in shown)
            values = ("-" if value is None else f"{value:.1f}" for value in parts)
            table.add_row(name, note[name], *values, style="dim")
    console.print(table)
    console.print()
    _show_pairs(console, results["comparisons"])
    _show_front(console, results["efficiency"]["front"])
    for other in results["ood"]:
        scored = [f"{arm['arm']} {_interval(arm['test']['overall'])}" for arm in other["arms"]] + [
            f"{name} {s['overall']:.1f}" for name, s in other["baselines"].items() if s
        ]
        console.print(f"On {other['data']}, never trained on: {', '.join(scored)}")
        console.print()
    console.print(Text(results["verdict"], style="bold"))


def _show_pairs(console: Console, comparisons: Sequence[Mapping[str, Any]]) -> None:
    """Print how the best of more than two arms compares with each other arm. For two arms the
    verdict says it."""
    if len(comparisons) < 2:
        return
    of_best = [c for c in comparisons if c["first"] == comparisons[0]["first"]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pair")
    for column in ("points", "p (Holm)", "finding"):
        table.add_column(column, justify="left" if column == "finding" else "right")
    for pair in of_best:
        found = pair["parts"]["overall"]
        table.add_row(
            f"{pair['first']} - {pair['second']}",
            _interval(found["difference"]),
            "< 0.001" if found["p_holm"] < 0.001 else f"{found['p_holm']:.3f}",
            found["finding"].replace("_", " "),
        )
    console.print(table)
    console.print()


def _show_front(console: Console, front: Sequence[Mapping[str, Any]]) -> None:
    """Print the trade-off that a search for several objectives found."""
    if not front:
        return
    costs = [name for name in front[0] if name in goals.COSTS.values()]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trade-off (search)")
    table.add_column("settings")
    for column in ("validation loss", *costs):
        table.add_column(column.replace("_", " "), justify="right")
    for trial in front:
        values = (f"{trial[name]:,.4g}" for name in ("validation_loss", *costs))
        settings = " ".join(f"{k}={short(v)}" for k, v in trial["parameters"].items())
        table.add_row(trial["arm"], settings, *values)
    console.print(table)
    console.print()


def _interval(estimate: Mapping[str, float]) -> str:
    """A mean with its interval, as text; without the interval if there is none."""
    if estimate["mean"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['mean']:.1f}"
    return f"{estimate['mean']:.1f} ({estimate['low']:.1f} to {estimate['high']:.1f})"
