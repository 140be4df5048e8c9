"""How a study was done, as a table for a paper's methods section: Markdown and LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.analysis.results_file import used_protocol
from study.reporting.summary import escaped
from study.reporting.table_files import latex_text
from study.storage.study_folder import METHODS_LATEX, METHODS_TABLE
from study.trials.record import Outcome
from study.trials.spec import Kind
from study.trials.text import count_text, short

if TYPE_CHECKING:
    from study.analysis.result_types import StudyResults, UsedProtocol
    from study.protocol.kept import ProtocolCheck

LONG = 3600
"""Seconds from which times are told in hours."""
SHOWN = 12
"""Letters of a digest of model, data or commit."""


def texts(results: StudyResults, checked: ProtocolCheck) -> dict[str, str]:
    """File name -> content, for both forms of the table."""
    found = rows(results, checked)
    lines = [
        "| | |",
        "|---|---|",
        *(f"| {name} | {escaped(text)} |" for name, text in found.items()),
    ]
    return {
        METHODS_TABLE: "\n".join(lines) + "\n",
        METHODS_LATEX: latex_text("methods.tex.jinja", study=results.study, rows=found),
    }


def rows(results: StudyResults, checked: ProtocolCheck) -> dict[str, str]:
    """What is said of the study -> how it was there. What an earlier version did not note is left
    out."""
    used = used_protocol(results)
    found = {
        "Question": results.question,
        "Base model": _model(used),
        "Data": _data(used),
        "Arms": ", ".join(arm.arm for arm in results.arms),
        "Search": _search(results, used),
        "Training of a trial": _training(used),
        "Confirmation": _confirmation(results),
        "Decision": _decision(results, used),
        "Hardware": _hardware(used),
        "Cost": _cost(results),
        "Software": _software(used),
        "Protocol": _protocol(checked),
    }
    return {name: " ".join(text.split()) for name, text in found.items() if text}


def _model(used: UsedProtocol) -> str:
    model = used.model
    text = f"{model.name} (digest {model.digest[:SHOWN]})"
    if model.image_size:
        text += f", images of {model.image_size} px"
    text += f", computed in {used.precision}"
    return text + (f", base in {used.base_bits.bits} bits" if used.base_bits else "")


def _data(used: UsedProtocol) -> str:
    data = used.data
    text = f"{data.name} (digest {data.digest[:SHOWN]}); questions: "
    text += ", ".join(f"{count:,} {split}" for split, count in data.questions.items())
    return text + (f"; {count_text(data.patients, 'patient')} in test" if data.patients else "")


def _search(results: StudyResults, used: UsedProtocol) -> str:
    trials = [trial for trial in results.trials if trial.kind is Kind.SEARCH]
    stopped = sum(trial.outcome is Outcome.PRUNED for trial in trials)
    parts = [
        f"{results.splits} splits of the data by image, an independent search of each arm in each"
        if results.splits > 1
        else f"{results.searches} independent searches of each arm"
        if results.searches > 1
        else "",
        f"{count_text(len(trials), 'trial')}, {stopped} of them stopped early",
        f"points by {used.searcher}",
        f"early stopping by {used.stopper}",
        f"division among arms: {used.allocation}",
        used.search.partition(", ")[2],
    ]
    return "; ".join(filter(None, parts))


def _training(used: UsedProtocol) -> str:
    budget = used.budget
    text = f"{budget.max_examples:,} examples"
    if budget.epochs:
        text += f" ({short(budget.epochs)} epochs)"
    return text + (f", batches of {budget.batch_size}" if budget.batch_size else "")


def _confirmation(results: StudyResults) -> str:
    counts = sorted({len(arm.seeds) for arm in results.confirmed})
    if not counts:
        return "none"
    seeds = " to ".join(dict.fromkeys(str(count) for count in (counts[0], counts[-1])))
    noun = f"seed{'s' * (seeds != '1')}"
    text = f"each arm's best settings trained again with {seeds} {noun}, scored once on test"
    for did in ("diverged", "collapsed"):
        unsteady = [a.arm for a in results.confirmed if a.unsteady and a.unsteady[0] == did]
        if unsteady:
            text += f"; twice the seeds of {', '.join(unsteady)}, by rule: a search trial {did}"
    return text


def _decision(results: StudyResults, used: UsedProtocol) -> str:
    title = results.shown.get(results.decides, results.decides)
    pairs = len(results.comparisons)
    margins = [pair.deciding.margin for pair in results.comparisons]
    text = f"{title} on the test split, 95% intervals over "
    text += "patients" if used.data.patients else "images"
    text += f" and {'searches' if results.searches > 1 else 'seeds'}"
    test = "paired test"
    if results.splits > 1:
        text = f"{title} on the test splits, 95% intervals over splits"
        test = "corrected resampled t-test"
    if pairs:
        each = f", of each arm with {results.against}" if results.against else ""
        text += f"; {count_text(pairs, test)}{each}, Holm; margin "
        text += f"{margins[0]:g} point{'s' * (margins[0] != 1)}"
    if results.splits > 1:
        return f"{text}; described, no arm is called better"
    return text + f"; about the {'methods' if results.searches > 1 else 'tuned models'}"


def _hardware(used: UsedProtocol) -> str:
    hardware = used.hardware
    if hardware is None:
        return ""
    kind = "processor" if hardware.device == "cpu" else f"{hardware.device.upper()} device"
    return (
        f"{count_text(hardware.devices, kind)} ({', '.join(hardware.names)}), "
        f"{count_text(hardware.concurrency, 'trial')} at a time"
    )


def _cost(results: StudyResults) -> str:
    search, confirmation = (
        _time(sum(t.costs.get("seconds", 0.0) for t in results.trials if t.kind is kind))
        for kind in (Kind.SEARCH, Kind.CONFIRM)
    )
    peak = max((t.costs.get("peak_memory_gib", 0.0) for t in results.trials), default=0.0)
    return f"search {search}, confirmation {confirmation}; at most {peak:.2f} GiB a trial"


def _time(seconds: float) -> str:
    """Time of devices in words."""
    if seconds < LONG:
        return f"{seconds:,.0f} device-seconds"
    return f"{seconds / 3600:,.1f} device-hours"


def _software(used: UsedProtocol) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in used.versions.items())
    return versions + (f"; commit {used.commit[:SHOWN]}" if used.commit else "")


def _protocol(checked: ProtocolCheck) -> str:
    if not checked.digest:
        return ""
    return f"fixed before the first trial, sha256 {checked.digest}; {checked.text}"
