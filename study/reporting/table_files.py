"""The report's tables for other programs: CSV with every digit, LaTeX as a paper prints them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

COSTS = ("trained_parameters", "trained_percent", "adapter_mib", "peak_memory_gib", "seconds")
"""Costs of an arm that are in the tables."""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
}


def texts(results: Mapping[str, Any]) -> dict[str, str]:
    """File name -> content, for all tables."""
    return {
        "results.csv": _csv(_arms(results)),
        "comparisons.csv": _csv(_comparisons(results)),
        "trials.csv": _csv(_trials(results)),
        "results.tex": _latex(results),
    }


def _arms(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the arms and, below them, of the baselines."""
    rows = []
    for arm in results["arms"]:
        row: dict[str, Any] = {"arm": arm["arm"]}
        for part in results["shown"]:
            for end in ("mean", "low", "high"):
                row[f"{part}_{end}"] = arm["test"][part][end] if arm["test"] else None
        row |= {cost: arm["costs"].get(cost) for cost in COSTS}
        row |= {"seeds": len(arm["seeds"]), "collapsed": arm["collapsed"]}
        row |= {"search_trials": sum(arm["trials"].values()), "search_s": arm["search_seconds"]}
        row["settings"] = _settings(arm["best"]["parameters"]) if arm["best"] else ""
        rows.append(row)
    for name, scores in results["baselines"].items():
        if scores:
            rows.append({"arm": name} | {f"{part}_mean": scores[part] for part in results["shown"]})
    return rows


def _comparisons(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the pairs of arms, one for each part of the questions."""
    kept = ("p", "p_holm", "margin", "finding", "seeds", "questions", "seeds_share")
    return [
        {"first": pair["first"], "second": pair["second"], "part": part}
        | {end: c["difference"][end] for end in ("mean", "low", "high")}
        | {name: c[name] for name in (*kept, "points_to_tell", "seeds_needed", "questions_needed")}
        for pair in results["comparisons"]
        for part, c in pair["parts"].items()
    ]


def _trials(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of all trials."""
    kept = ("trial", "kind", "arm", "lr", "seed", "outcome", "error", "remark")
    rows = []
    for trial in results["trials"]:
        row = {name: trial[name] for name in kept}
        last = trial["rungs"][-1] if trial["rungs"] else {}
        row |= {name: last.get(name) for name in ("examples_seen", "validation_loss")}
        row |= {"settings": _settings(trial["parameters"])}
        rows.append(row | {cost: trial["costs"].get(cost) for cost in COSTS if cost != COSTS[2]})
    return rows


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _latex(results: Mapping[str, Any]) -> str:
    """The arms and the pairs of arms as two tables for the package ``booktabs``."""
    titles = [_escaped(title) for title in results["shown"].values()]
    lines = [
        "% " + " ".join(results["question"].split()),
        rf"\begin{{tabular}}{{lrr{'r' * len(results['shown'])}}}",
        r"\toprule",
        rf"arm & {' & '.join(titles)} & trained (\%) & device-seconds \\",
        r"\midrule",
    ]
    for arm in results["arms"]:
        if not arm["test"]:
            across = rf"\multicolumn{{{2 + len(titles)}}}{{l}}{{not confirmed}}"
            lines.append(rf"{_escaped(arm['arm'])} & {across} \\")
            continue
        cells = [_escaped(arm["arm"]), *(_interval(arm["test"][part]) for part in results["shown"])]
        cells += [f"{arm['costs']['trained_percent']:.3f}", f"{arm['costs']['seconds']:,.1f}"]
        lines.append(" & ".join(cells) + r" \\")
    lines.append(r"\midrule")
    for name, scores in results["baselines"].items():
        if scores:
            cells = [_escaped(name), *(_number(scores[part]) for part in results["shown"]), "", ""]
            lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    if results["comparisons"]:
        lines += [
            r"\begin{tabular}{lrrl}",
            r"\toprule",
            r"pair & difference & $p$ (Holm) & finding \\",
            r"\midrule",
        ]
        for pair in results["comparisons"]:
            c = pair["parts"]["overall"]
            p = "$<0.001$" if c["p_holm"] < 0.001 else f"{c['p_holm']:.3f}"
            names = f"{_escaped(pair['first'])} $-$ {_escaped(pair['second'])}"
            finding = c["finding"].replace("_", " ")
            lines.append(rf"{names} & {_interval(c['difference'])} & {p} & {finding} \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def _interval(found: Mapping[str, float | None]) -> str:
    if found["mean"] is None:
        return "--"
    if found["low"] is None:
        return _number(found["mean"])
    low, high = _number(found["low"]), _number(found["high"])
    return rf"{_number(found['mean'])} {{\footnotesize [{low}, {high}]}}"


def _number(value: float | None) -> str:
    return "--" if value is None else f"${value:.1f}$" if value < 0 else f"{value:.1f}"


def _settings(parameters: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value!r}" for name, value in parameters.items())


def _escaped(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
