"""Shows a comparison of studies: as a page, as tables for other programs, and on the terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from study.analysis.verdict import parts
from study.comparison.compared_types import StudyComparison, own_name
from study.reporting import figures, page, table_files, terminal
from study.reporting.summary import interval
from study.storage.paths import atomic_write
from study.trials.colours import terminal_style
from study.trials.text import settings_text

if TYPE_CHECKING:
    from rich.console import Console

    from study.statistics.score_types import ArmPair

PAGE, JSON, LATEX = "comparison.html", "comparison.json", "comparison.tex"
ARMS_TABLE, PAIRS_TABLE, INTERACTIONS_TABLE = "arms.csv", "pairs.csv", "interactions.csv"
"""Names of the files of a comparison."""
UNTOLD = (
    *("versions.", "hardware.", "search", "commit", "model.digest", "settings.model"),
    *("settings.trials", "settings.max_examples"),
)
"""Beginnings of the settings that are not printed where studies differ in them: others say it, or
they decide no number. The page has them all."""
MOST_PAIRS = 10
"""Pairs of arms that the terminal shows."""


def write(folder: Path, found: StudyComparison) -> list[Path]:
    """Write the page of a comparison and its tables into a folder, which is made if it is not
    there; each file whole or not at all.

    Returns:
        The files, the page first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        PAGE: _page(found),
        JSON: as_json(found) + "\n",
        ARMS_TABLE: table_files.csv_text(_arms(found)),
        PAIRS_TABLE: table_files.csv_text(table_files.comparisons(found.comparisons)),
        INTERACTIONS_TABLE: table_files.csv_text(_interactions(found)),
        LATEX: table_files.latex_text("comparison.tex.jinja", r=found),
    }
    for name, text in texts.items():
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def as_json(found: StudyComparison) -> str:
    """A comparison as JSON."""
    from study.analysis.results_file import plain

    return json.dumps(plain(found), indent=2, allow_nan=False)


def show(console: Console, found: StudyComparison) -> None:
    """Print the arms of all studies, the pairs that tell most, what differs, and the verdict."""
    costs = ("trained", "seconds", "GiB")
    letters = found.letters
    group = ["group"] * bool(letters)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(["arm", "base", *group, *found.shown.values(), *costs]):
        table.add_column(column, justify="right" if place > 1 else "left")
    numbers = found.arm_numbers
    bases = {study.study: study.model for study in found.studies}
    for arm in found.arms:
        name = Text(arm.arm, style=terminal_style(numbers[arm.arm]))
        base = Text(bases[study_of(arm.arm)])
        if arm.test is None:
            table.add_row(name, base, "not confirmed")
            continue
        row = [letters[arm.arm]] * bool(letters)
        row += [interval(arm.test[measure]) for measure in found.shown]
        row.append(f"{arm.costs['trained_parameters']:,.0f}")
        row += [f"{arm.costs['seconds']:.1f}", f"{arm.costs['peak_memory_gib']:.2f}"]
        table.add_row(name, base, *row)
    for study in found.studies:
        if study.untuned:
            row = [""] * bool(letters)
            row += [_number(study.untuned.get(measure)) for measure in found.shown]
            table.add_row(f"{study.study}, untuned", Text(study.model), *row, style="dim")
    console.print(table)
    console.print()
    terminal.show_pairs(console, _main(found)[:MOST_PAIRS])
    for setting, values in found.differs.items():
        if not setting.startswith(UNTOLD):
            console.print(Text(f"{setting}: " + ", ".join(f"{v} ({s})" for s, v in values.items())))
    for note in found.notes:
        console.print(Text(note))
    console.print()
    terminal.show_verdict(console, found.verdict)


def study_of(arm: str) -> str:
    """Name of the study of an arm of a comparison."""
    return arm.partition("/")[0]


def _page(found: StudyComparison) -> str:
    """The HTML of the page."""
    from study.statistics.pairwise import margin_in_words

    main = _main(found)
    once = [study.study for study in found.studies if study.searches == 1]
    several = [study.study for study in found.studies if study.searches > 1]
    between = [pair for pair in _between(found) if pair not in main]
    return page.rendered(
        "comparison.html.jinja",
        r=found,
        verdict=parts(found.verdict),
        title=f"Comparison of {_names([study.study for study in found.studies])}",
        legend=figures.legend(found),
        numbers=found.arm_numbers,
        letters=found.letters,
        figures={
            "scores": figures.scores(found, figures.WIDE),
            "differences": figures.differences(replace(found, comparisons=tuple(main))),
        },
        once=once,
        searches=", ".join(f"{study.study} {study.searches}" for study in found.studies),
        varied=_varied(once, several),
        margin=margin_in_words(found.margin),
        pairs=main,
        folded={
            "other pairs of arms of two studies": between,
            "pairs of arms of one study": [
                pair for pair in found.comparisons if not _is_between(pair) and pair not in main
            ],
        },
        settings=settings_text,
    )


def _varied(once: list[str], several: list[str]) -> str:
    """What differs between the models of an arm: seeds, or the searches of which they are."""
    if not several:
        return "seeds"
    return f"seeds (searches in {_names(several)})" if once else "searches"


def _is_between(pair: ArmPair) -> bool:
    """Whether a pair has arms of two studies."""
    return study_of(pair.first) != study_of(pair.second)


def _between(found: StudyComparison) -> list[ArmPair]:
    """The pairs of arms of two studies, by their p-values."""
    pairs = filter(_is_between, found.comparisons)
    return sorted(pairs, key=lambda pair: pair.deciding.p_holm)


def _main(found: StudyComparison) -> list[ArmPair]:
    """The pairs that a reader asks for first, by their p-values. Of two studies: those of the best
    arm, and those of arms of one name. Where studies declared an arm against which the others are
    compared: each arm with that of its study, and those arms with each other."""
    if found.against is not None:
        declared = [
            pair
            for pair in found.comparisons
            if not _is_between(pair) or own_name(pair.first) == own_name(pair.second)
        ]
        return sorted(declared, key=lambda pair: pair.deciding.p_holm)
    best = found.arms[0].arm
    return [
        pair
        for pair in _between(found)
        if best in (pair.first, pair.second) or own_name(pair.first) == own_name(pair.second)
    ]


def _arms(found: StudyComparison) -> list[dict[str, Any]]:
    """Rows of the arms."""
    rows = []
    bases = {study.study: study for study in found.studies}
    letters = found.letters
    for arm in found.arms:
        study, name = bases[study_of(arm.arm)], own_name(arm.arm)
        row: dict[str, Any] = {"study": study.study, "arm": name, "model": study.model}
        row |= {"group": letters.get(arm.arm, "")}
        row |= {"data": study.data, "space": study.space}
        for part in found.shown:
            for end in table_files.ENDS:
                row[f"{part}_{end}"] = getattr(arm.test[part], end) if arm.test else None
        row |= {cost: arm.costs.get(cost) for cost in table_files.COSTS}
        row |= {"seeds": len(arm.seeds), "search_s": arm.search_seconds}
        row["settings"] = settings_text(arm.best.parameters, exact=True) if arm.best else ""
        rows.append(row)
    return rows


def _interactions(found: StudyComparison) -> list[dict[str, Any]]:
    """Rows of the interactions."""
    names = ("first", "second", "study", "other_study", "one", "other")
    return [
        {name: getattr(each, name) for name in names}
        | {end: getattr(each.difference, end) for end in table_files.ENDS}
        | {name: getattr(each, name) for name in ("p", "p_holm", "seeds", "shown")}
        for each in found.interactions
    ]


def _names(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
