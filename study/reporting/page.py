"""Writes ``report.html``: what a study found, on one page that needs no other file."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.analysis.result_types import SeedScores, StudyResults, TrialResult
    from study.protocol.kept import ProtocolCheck

from study.analysis.verdict import parts
from study.config.budget import RISE
from study.statistics.score_types import Finding
from study.storage.paths import atomic_write
from study.storage.study_folder import REPORT
from study.trials.record import Outcome
from trainables.data.common.wording import BRIEF
from trainables.errors import BadInput

HERE = Path(__file__).parent
DECIDED = tuple(Finding)
"""Findings about a pair, those that decide most first."""


def write(folder: Path, results: StudyResults) -> list[Path]:
    """Write the report of a study and its tables, each file whole or not at all.

    Returns:
        The files, the page first.

    Raises:
        BadInput: one of them is a folder. None is written then.
    """
    from study.protocol import kept
    from study.reporting import methods_table, table_files

    checked = kept.check(folder, results)
    texts = {
        REPORT: _page(results, checked),
        **table_files.texts(results),
        **methods_table.texts(results, checked),
    }
    for name in texts:
        if (folder / name).is_dir():
            raise BadInput(f"{folder / name} is a folder; a file is written there: move it away")
    written = []
    for name, text in texts.items():
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def _page(results: StudyResults, checked: ProtocolCheck) -> str:
    """The HTML of the page."""
    from study.config.space_changes import narrowing
    from study.reporting import calibration_figures, figures, group_figures, search_figures, summary
    from study.trials.text import settings_text

    asked = results.protocol["settings"]
    counts = sorted({len(arm.seeds) for arm in results.confirmed}) or [0]
    return rendered(
        "report.html.jinja",
        r=results,
        verdict=parts(results.verdict),
        protocol=checked,
        legend=figures.legend(results),
        numbers=results.arm_numbers,
        figures={
            draw.__name__: draw(results)
            for draw in (
                *(figures.scores, figures.differences, figures.pareto, figures.budget),
                *(calibration_figures.reliability, group_figures.groups),
                *(
                    search_figures.learning_curves,
                    search_figures.learning_rates,
                    search_figures.parallel,
                ),
            )
        },
        long_names=figures.has_long_names(results),
        most_drawn=search_figures.DRAWN,
        some_drawn=search_figures.leaves_some_out(results),
        failures=_failures(results),
        tested=bool(results.confirmed),
        notes=summary.BASELINES | {"majority": f"always {summary.BASELINES['majority']}"},
        brief_prompt=BRIEF,
        narrowed=narrowing.options_text(asked.get("arm"), asked.get("set")),
        seeds=" to ".join(map(str, counts)) + (" seed" if counts == [1] else " seeds"),
        margin=_margin(results),
        pairs={(c.first, c.second): c.deciding for c in results.comparisons},
        decided_first=sorted(results.comparisons, key=lambda c: DECIDED.index(c.deciding.finding)),
        drawn_pairs=figures.PAIRS,
        rungs_reached=_rungs_reached(results),
        settings=settings_text,
        rise=RISE,
        mean=_mean,
    )


def rendered(template: str, **given: Any) -> str:
    """A page made of a template of this folder, with the style and the script that all pages
    have; ``given`` are the template's own variables."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    script = (HERE / "report.js").read_text(encoding="utf-8")
    hashed = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    return environment.from_string((HERE / template).read_text(encoding="utf-8")).render(
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        allowed_script=f"'sha256-{hashed}'",
        number=_number,
        **given,
    )


def _failures(results: StudyResults) -> list[list[TrialResult]]:
    """Trials that did not end well, those together that failed alike, in the order of the first
    of each."""
    alike: dict[tuple[object, ...], list[TrialResult]] = defaultdict(list)
    for t in results.trials:
        if t.outcome not in (Outcome.COMPLETE, Outcome.PRUNED, None):
            alike[t.kind, t.arm, t.outcome, t.error].append(t)
    return list(alike.values())


def _rungs_reached(results: StudyResults) -> dict[str, int]:
    """Arm -> number of rungs that its search trials reported together: how far they came."""
    reached: Counter[str] = Counter()
    for trial in results.trials:
        if trial.kind == "search":
            reached[trial.arm] += len(trial.rungs)
    return {arm.arm: reached[arm.arm] for arm in results.arms}


def _margin(results: StudyResults) -> str:
    """The margin in words; empty if there are no pairs of arms."""
    from study.statistics.pairwise import margin_in_words

    found = [pair.deciding.margin for pair in results.comparisons]
    return margin_in_words(found[0]) if found else ""


def _mean(seeds: Sequence[SeedScores], column: str) -> float | None:
    """Mean of a column over seeds that have it; None if there are none."""
    values = [seed.scores.get(column) for seed in seeds]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None, digits: int = 1) -> str:
    """A number with a fixed number of digits; a dash if there is none."""
    return "\u2013" if value is None or math.isnan(value) else f"{value:,.{digits}f}"
