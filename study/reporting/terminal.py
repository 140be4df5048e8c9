"""Prints the results of a study as tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from study.trials.gain import GainUnit
from study.trials.text import settings_text

if TYPE_CHECKING:
    from study.analysis.efficiency_types import FrontTrial
    from study.analysis.result_types import StudyResults
    from study.analysis.score_types import ArmPair, Estimate, Score

GAIN_TITLES = {GainUnit.POINTS: "may still gain", GainUnit.LOSS: "loss may fall"}
"""Unit of what an arm may still gain -> title of its column."""


def standard_console() -> Console:
    """Console on standard output, without highlighting. It is as wide as the terminal, and 140
    columns wide where the output goes into a file or a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def show_results(console: Console, results: StudyResults) -> None:
    """Print the confirmed arms, baselines, comparisons, other datasets, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    table.add_column("best settings")
    shown = results.shown
    gains = [arm.may_gain for arm in results.arms if arm.may_gain is not None]
    gain = (
        ["may still gain" if gains[0].unit is GainUnit.POINTS else "loss may fall"] if gains else []
    )
    for column in (*shown.values(), *gain, "trained", "seconds", "GiB"):
        table.add_column(column, justify="right")
    for arm in results.arms:
        settings = settings_text(arm.best.parameters) if arm.best else ""
        if arm.test is None:
            table.add_row(arm.arm, settings, "not confirmed")
            continue
        table.add_row(
            arm.arm + (" (collapsed)" if arm.collapsed else ""),
            settings,
            *(_interval(arm.test[measure]) for measure in shown),
            *(arm.may_gain.numbers if arm.may_gain else "-" for _ in gain),
            f"{arm.costs['trained_parameters']:,.0f}",
            f"{arm.costs['seconds']:.1f}",
            f"{arm.costs['peak_memory_gib']:.2f}",
        )
    notes = {"untuned": "the base model as it is", "majority": "the most frequent answer"}
    baselines = results.baselines.named()
    for name, note in notes.items():
        if name in baselines:
            parts = (baselines[name][measure] for measure in shown)
            values = ("-" if value is None else f"{value:.1f}" for value in parts)
            table.add_row(name, note, *values, style="dim")
    console.print(table)
    console.print()
    _show_pairs(console, results.comparisons)
    _show_front(console, results.efficiency.front)
    for other in results.ood:
        scored = [f"{arm.arm} {_interval(arm.test['overall'])}" for arm in other.arms] + [
            f"{name} {scores['overall']:.1f}" for name, scores in other.baselines.named().items()
        ]
        console.print(f"On {other.data}, never trained on: {', '.join(scored)}")
        console.print()
    console.print(Text(results.verdict, style="bold"))


def _show_pairs(console: Console, comparisons: Sequence[ArmPair]) -> None:
    """Print how the best of more than two arms compares with each other arm. For two arms the
    verdict says it."""
    if len(comparisons) < 2:
        return
    of_best = [c for c in comparisons if c.first == comparisons[0].first]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pair")
    for column in ("points", "p (Holm)", "finding"):
        table.add_column(column, justify="left" if column == "finding" else "right")
    for pair in of_best:
        found = pair.parts["overall"]
        table.add_row(
            f"{pair.first} - {pair.second}",
            _interval(found.difference),
            "< 0.001" if found.p_holm < 0.001 else f"{found.p_holm:.3f}",
            found.finding.replace("_", " "),
        )
    console.print(table)
    console.print()


def _show_front(console: Console, front: Sequence[FrontTrial]) -> None:
    """Print the trade-off that a search for several objectives found."""
    if not front:
        return
    costs = list(front[0].costs)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trade-off (search)")
    table.add_column("settings")
    for column in ("validation loss", *costs):
        table.add_column(column.replace("_", " "), justify="right")
    for trial in front:
        values = (f"{value:,.4g}" for value in (trial.validation_loss, *trial.costs.values()))
        table.add_row(trial.arm, settings_text(trial.parameters), *values)
    console.print(table)
    console.print()


def _interval(score: Score | Estimate) -> str:
    """A mean with its interval, as text; without the interval if there is none."""
    if score.mean is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{score.mean:.1f}"
    return f"{score.mean:.1f} ({score.low:.1f} to {score.high:.1f})"
