"""The report's tables for other programs: CSV with every digit, LaTeX as a paper prints them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.trials.text import settings_text

if TYPE_CHECKING:
    from study.analysis.result_types import StudyResults
    from study.statistics.score_types import ArmPair, Estimate, Score

from study.storage.study_folder import (
    ARMS_TABLE,
    GROUPS_TABLE,
    LATEX_TABLES,
    PAIRS_TABLE,
    TRIALS_TABLE,
)
from trainables.training.blind import BLIND

ENDS = ("mean", "low", "high")
"""Fields of an estimate."""
COSTS = ("trained_parameters", "trained_percent", "adapter_mib", "peak_memory_gib", "seconds")
"""Costs of an arm that are in the tables."""
TRIAL_COSTS = tuple(cost for cost in COSTS if cost != "adapter_mib")
"""Costs of a trial that are in the tables."""
LATEX = "results.tex.jinja"
"""Template of the tables for LaTeX, with ``<< >>`` and ``<% %>`` where Jinja usually has braces."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that a spreadsheet takes for a formula."""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
}


def texts(results: StudyResults) -> dict[str, str]:
    """File name -> content, for all tables."""
    return {
        ARMS_TABLE: csv_text(_arms(results)),
        PAIRS_TABLE: csv_text(comparisons(results.comparisons)),
        GROUPS_TABLE: csv_text(_groups(results)),
        TRIALS_TABLE: csv_text(_trials(results)),
        LATEX_TABLES: latex_text(LATEX, r=results),
    }


def _arms(results: StudyResults) -> list[dict[str, Any]]:
    """Rows of the arms and, below them, of the baselines."""
    rows = []
    for arm in results.arms:
        row: dict[str, Any] = {"arm": arm.arm}
        for part in results.shown:
            for end in ENDS:
                row[f"{part}_{end}"] = getattr(arm.test[part], end) if arm.test else None
        leader = results.leader if arm is results.arms[0] else None
        for end in ("mean", "low", "high"):
            row[f"{results.decides}_as_the_best_{end}"] = getattr(leader, end, None)
        row |= {cost: arm.costs.get(cost) for cost in COSTS}
        row |= {"seeds": len(arm.seeds), "collapsed": arm.collapsed}
        rate = arm.collapse.rate if arm.collapse else None
        row |= {f"collapse_percent_{end}": getattr(rate, end, None) for end in ("low", "high")}
        row |= {"search_trials": sum(arm.trials.values()), "search_s": arm.search_seconds}
        for end in ("mean", "low", "high", "unit"):
            row[f"may_gain_{end}"] = getattr(arm.may_gain, end, None)
        for way in BLIND:
            blind = arm.blind.get(way)
            row[f"{way}_mean"] = blind.score if blind else None
            row |= {
                f"{way}_gain_{end}": getattr(blind.gain, end) if blind else None for end in ENDS
            }
        row["ece_mean"] = arm.calibration.error if arm.calibration else None
        row |= {f"ece_{end}": getattr(arm.calibration, end, None) for end in ("low", "high")}
        row["settings"] = settings_text(arm.best.parameters, exact=True) if arm.best else ""
        rows.append(row)
    for name, scores in results.baselines.named().items():
        rows.append({"arm": name} | {f"{part}_mean": scores[part] for part in results.shown})
    return rows


def comparisons(pairs: Sequence[ArmPair]) -> list[dict[str, Any]]:
    """Rows of the pairs of arms, one for each part of the questions."""
    columns = (
        *("p", "p_holm", "margin", "finding", "seeds", "questions"),
        *("seeds_share", "points_to_tell", "seeds_needed", "questions_needed"),
    )
    return [
        {"first": pair.first, "second": pair.second, "part": part}
        | {end: getattr(comparison.difference, end) for end in ("mean", "low", "high")}
        | {name: getattr(comparison, name) for name in columns}
        | {
            f"{name}_needed_{end}": (getattr(comparison, f"{name}_range") or (None, None))[place]
            for name in ("seeds", "questions")
            for place, end in enumerate(("low", "high"))
        }
        for pair in pairs
        for part, comparison in pair.parts.items()
    ]


def _groups(results: StudyResults) -> list[dict[str, Any]]:
    """Rows of the groups of questions, one for the best arm with each other arm."""
    return [
        {"field": group.field, "value": group.value, "questions": group.questions}
        | {"first": pair.first, "second": pair.second}
        | {"first_mean": group.scores[pair.first].mean}
        | {"second_mean": group.scores[pair.second].mean}
        | {end: getattr(pair.difference, end) for end in ENDS}
        | {"p": pair.p, "p_holm": pair.p_holm}
        for group in (results.strata.groups if results.strata else ())
        for pair in group.pairs
    ]


def _trials(results: StudyResults) -> list[dict[str, Any]]:
    """Rows of all trials."""
    columns = ("trial", "kind", "arm", "lr", "seed", "outcome", "error", "remark")
    rows = []
    for trial in results.trials:
        row = {name: getattr(trial, name) for name in columns}
        last = trial.rungs[-1] if trial.rungs else None
        row |= {name: getattr(last, name, None) for name in ("examples_seen", "validation_loss")}
        row |= {"settings": settings_text(trial.parameters, exact=True)}
        rows.append(row | {cost: trial.costs.get(cost) for cost in TRIAL_COSTS})
    return rows


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, under a header of the first row's names. A text that a spreadsheet would run as
    a formula begins with an apostrophe."""
    text = io.StringIO()
    names = list(rows[0]) if rows else []
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writerow({name: _harmless(name) for name in names})
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """A value as a cell, of which no spreadsheet makes a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def latex_text(template: str, **given: Any) -> str:
    """Tables for LaTeX's package ``booktabs``, made of a template of this folder; ``given`` are its
    variables."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    environment.filters |= {"escaped": _escaped, "interval": _interval, "number": _number}
    environment.filters |= {"p_value": _p_value}
    source = Path(__file__).with_name(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(**given)


def _interval(score: Score | Estimate) -> str:
    """A mean with its interval in small print, for LaTeX; without the interval if there is none."""
    if score.low is None or score.high is None:
        return _number(score.mean)
    low, high = _number(score.low), _number(score.high)
    return rf"{_number(score.mean)} {{\footnotesize [{low}, {high}]}}"


def _number(value: float | None) -> str:
    """A number with one digit, for LaTeX; a dash if there is none."""
    return "--" if value is None else f"${value:.1f}$" if value < 0 else f"{value:.1f}"


def _p_value(p: float) -> str:
    """A p-value, for LaTeX."""
    return "$<0.001$" if p < 0.001 else f"{p:.3f}"


def _escaped(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
