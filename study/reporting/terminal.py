"""Prints the results of a study as tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from study.analysis import verdict
from study.reporting import summary
from study.reporting.summary import interval
from study.trials.colours import terminal_style
from study.trials.text import settings_text

if TYPE_CHECKING:
    from study.analysis.efficiency_types import FrontTrial
    from study.analysis.result_types import StudyResults
    from study.statistics.score_types import ArmPair


def standard_console() -> Console:
    """Console on standard output, without highlighting. It is as wide as the terminal, and 140
    columns wide where the output goes into a file or a pipe."""
    width = None if sys.stdout.isatty() else 140
    # Names and texts of users may have brackets, which are no markup.
    return Console(highlight=False, markup=False, emoji=False, width=width)


def show_results(console: Console, results: StudyResults) -> None:
    """Print the confirmed arms, baselines, comparisons, other datasets, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in summary.header(results):
        table.add_column(column, justify="left" if column in summary.NAMES else "right")
    numbers = results.arm_numbers
    for arm, (name, *row) in summary.arm_rows(results).items():
        table.add_row(Text(name, style=terminal_style(numbers[arm])), *map(Text, row))
    if row := summary.leader_row(results):
        table.add_row(*map(Text, row), style="dim")
    for row in summary.baseline_rows(results):
        table.add_row(*row, style="dim")
    console.print(table)
    console.print()
    _show_best(console, results)
    _show_front(console, results.efficiency.front)
    for other in results.ood:
        scored = [f"{arm.arm} {interval(arm.test['overall'])}" for arm in other.arms] + [
            f"{name} {scores['overall']:.1f}" for name, scores in other.baselines.named().items()
        ]
        console.print(f"On {other.data}, never trained on: {', '.join(scored)}")
        console.print()
    show_verdict(console, results.verdict)


def show_verdict(console: Console, text: str) -> None:
    """Print a verdict: what was found in bold type, and each caveat in lines of its own."""
    found, caveats = verdict.parts(text)
    console.print(Text(found, style="bold"))
    for caveat in caveats:
        console.print(Text(f"- {caveat}"))


def _show_best(console: Console, results: StudyResults) -> None:
    """Print how the best of more than two arms compares with each other arm, or each arm with the
    one against which all are compared. For two arms the verdict says it."""
    pairs = results.comparisons
    if len(pairs) > 1:
        show_pairs(console, [c for c in pairs if results.against or c.first == pairs[0].first])


def show_pairs(console: Console, pairs: Sequence[ArmPair]) -> None:
    """Print how pairs of arms compare."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pair")
    for column in ("points", "p (Holm)", "finding"):
        table.add_column(column, justify="left" if column == "finding" else "right")
    for pair in pairs:
        found = pair.deciding
        table.add_row(
            f"{pair.first} - {pair.second}",
            interval(found.difference),
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
        table.add_row(trial.arm, Text(settings_text(trial.parameters)), *values)
    console.print(table)
    console.print()
