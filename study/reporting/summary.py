"""The table of a study's arms and baselines as texts, for the terminal and for MLflow."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from study.trials.gain import GainUnit
from study.trials.text import settings_text

if TYPE_CHECKING:
    from study.analysis.result_types import StudyResults
    from study.statistics.score_types import Estimate, Score

BASELINES = {
    "untuned": "the base model as it is",
    "untuned_lenient": "the same answers, by their first words",
    "untuned_brief": "the base model, asked for a word or phrase",
    "untuned_brief_lenient": "the same answers, by their first words",
    "majority": "the most frequent answer",
}
"""Baseline -> what it is."""
NAMES = ("arm", "group", "best settings")
"""Titles of the columns that hold no numbers."""
GAINS = {GainUnit.POINTS: "may still gain", GainUnit.LOSS: "loss may fall"}
"""Unit of what an arm may still gain -> title of its column."""


def header(results: StudyResults) -> list[str]:
    """Titles of the columns. ``group`` is there with three arms and more: arms that have a letter
    in common are not told apart."""
    costs = ("trained", "seconds", "GiB")
    group = ["group"] * bool(results.letters)
    return ["arm", *group, "best settings", *results.shown.values(), *_gain(results), *costs]


def arm_rows(results: StudyResults) -> dict[str, list[str]]:
    """Name of an arm -> its row, the best arm first; a short one if it was not confirmed."""
    rows, groups = {}, results.letters
    for arm in results.arms:
        marks = {"collapsed": arm.collapsed, "blind": arm.unseeing}
        name = arm.arm + "".join(f" ({mark})" for mark, has in marks.items() if has)
        row = [name, *([groups.get(arm.arm, "")] if groups else [])]
        row.append(settings_text(arm.best.parameters) if arm.best else "")
        if arm.test is None:
            row.append("not confirmed")
        else:
            row += [interval(arm.test[measure]) for measure in results.shown]
            row += [arm.may_gain.numbers if arm.may_gain else "-" for _ in _gain(results)]
            row.append(f"{arm.costs['trained_parameters']:,.0f}")
            row += [f"{arm.costs['seconds']:.1f}", f"{arm.costs['peak_memory_gib']:.2f}"]
        rows[arm.arm] = row
    return rows


def leader_row(results: StudyResults) -> list[str]:
    """Row of the best arm's score as it is with the choice in it; empty if there is none."""
    if results.leader is None or next(iter(results.shown), "") != results.decides:
        return []
    return [
        *[""] * (2 if results.letters else 1),
        f"{results.arms[0].arm}, as the best of {len(results.confirmed)}",
        interval(results.leader),
    ]


def baseline_rows(results: StudyResults) -> list[list[str]]:
    """A row for each baseline that has scores."""
    named = results.baselines.named()
    return [
        [
            name.replace("_", " "),
            *[""] * bool(results.letters),
            what,
            *(_number(named[name][measure]) for measure in results.shown),
        ]
        for name, what in BASELINES.items()
        if name in named
    ]


def markdown(results: StudyResults) -> str:
    """The table, in Markdown."""
    columns = header(results)
    rows = [columns, ["---"] * len(columns), *arm_rows(results).values()]
    rows += [row for row in (leader_row(results), *baseline_rows(results)) if row]
    lines = [
        "| "
        + " | ".join(escaped(text) for text in [*row, *[""] * (len(columns) - len(row))])
        + " |"
        for row in rows
    ]
    return "\n".join(lines)


def interval(score: Score | Estimate) -> str:
    """A mean with its interval, as text; without the interval if there is none."""
    if score.mean is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{score.mean:.1f}"
    return f"{score.mean:.1f} ({score.low:.1f} to {score.high:.1f})"


def escaped(text: str) -> str:
    """Text whose characters stand for themselves in Markdown, also in a cell of a table."""
    for character in "\\`*_[]|":
        text = text.replace(character, f"\\{character}")
    return html.escape(text, quote=False)


def _gain(results: StudyResults) -> list[str]:
    """Title of the column of what arms may still gain; empty if it is known of none."""
    units = [arm.may_gain.unit for arm in results.arms if arm.may_gain]
    return [GAINS[unit] for unit in units[:1]]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
