"""``report.html``: what a study found, on one page that needs no other file; its tables beside it.

``python -m study.report NAME [--storage DIR]`` writes both anew from ``results.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study import faults
from study.paths import STUDY
from study.storage import folder_of
from trainables.errors import BadInput, unknown
from trainables.secrecy import Parser, without_secrets

FILE = "report.html"
RESULTS = "results.json"
VERSION = 1
"""Of ``results.json``, that this page is made of."""
HERE = Path(__file__).parent


def write(folder: Path, results: Mapping[str, Any]) -> list[Path]:
    """Write the report of ``results`` (see ``study.results``) and its tables; each whole or not at
    all. The first of the files is the page."""
    from study import tables

    texts = {FILE: _page(results), **tables.texts(results)}
    written = []
    for name, text in texts.items():
        path = folder / name
        partial = folder / f".{name}.partial-{os.getpid()}"
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        written.append(path)
    return written


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input."""
    given = _parser().parse_args(arguments)
    try:
        storage = folder_of(given.storage, given.name)
        results = _read(storage, given.name)
        with faults.told(storage):
            for path in write(storage / given.name, results):
                print(path)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _page(results: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from study import figures

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = (HERE / "report.html.jinja").read_text(encoding="utf-8")
    counts = sorted({len(arm["seeds"]) for arm in results["arms"] if arm["test"]}) or [0]
    return environment.from_string(source).render(
        r=results,
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
        legend=figures.legend(results),
        figures={
            draw.__name__: draw(results)
            for draw in (
                *(figures.scores, figures.differences, figures.pareto, figures.budget),
                *(figures.learning_curves, figures.learning_rates, figures.parallel),
            )
        },
        tested=any(arm["test"] for arm in results["arms"]),
        seeds=" to ".join(map(str, counts)) + (" seed" if counts == [1] else " seeds"),
        margin=_margin(results),
        rungs_reached=_rungs_reached(results),
        number=_number,
        mean=_mean,
    )


def _read(storage: Path, name: str) -> dict[str, Any]:
    file = storage / name / RESULTS
    if not (STUDY.fullmatch(name) and file.is_file()):
        there = sorted(path.parent.name for path in storage.glob(f"*/{RESULTS}"))
        if there:
            raise unknown("study with results", name, there)
        raise BadInput(f"no study in --storage {storage} has results")
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{file} is no JSON: {error}") from None
    if found.get("version") != VERSION:
        raise BadInput(f"{file} is of version {found.get('version')}; this reads {VERSION}")
    # Of a study that is older than this.
    found["protocol"]["command"] = without_secrets(found["protocol"]["command"])
    return found


def _rungs_reached(results: Mapping[str, Any]) -> dict[str, int]:
    """Arm -> reports of all its search trials: how far they came, together."""
    reached: Counter[str] = Counter()
    for trial in results["trials"]:
        if trial["kind"] == "search":
            reached[trial["arm"]] += len(trial["rungs"])
    return {arm["arm"]: reached[arm["arm"]] for arm in results["arms"]}


def _margin(results: Mapping[str, Any]) -> str:
    from study.verdict import margin_in_words

    found = [pair["parts"]["overall"]["margin"] for pair in results["comparisons"]]
    return margin_in_words(found[0]) if found else ""


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return sum(values) / len(values) if values else None


def _number(value: float | None, digits: int = 1) -> str:
    return "\u2013" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m study.report",
        description="Write a study's report and tables anew from its results.json.",
    )
    parser.add_argument("name", metavar="NAME", help="of the study")
    parser.add_argument(
        "--storage", default="studies", metavar="DIR|s3://BUCKET/NAME", help="[%(default)s]"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
