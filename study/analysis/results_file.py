"""Reads and writes ``results.json``, which holds what a finished study found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from study.analysis.efficiency_types import COSTS
from study.analysis.result_types import VERSION, DatasetResult, StudyResults, UsedProtocol
from study.statistics.score_types import NOTHING
from study.storage.paths import atomic_write
from study.storage.study_folder import RESULTS, StudyFolder, study_names, unknown_study
from study.trials.spec import Kind
from trainables import stored_json
from trainables.errors import BadInput
from trainables.secrecy import without_secrets

NEEDED_COSTS = (*COSTS, "trained_percent")
"""Costs that every confirmed arm has."""


def read(study_folder: StudyFolder) -> StudyResults:
    """Read the results of a finished study.

    Raises:
        BadInput: there is no such study, it has not ended, or its ``results.json`` is of another
            version, damaged or contradicts itself.
    """
    file, name = study_folder.results, study_folder.name
    if not study_folder.finished:
        if study_folder.begun and study_folder.driver is not None:
            raise BadInput(f"study {name!r} is still running; study.status says how far it is")
        if study_folder.begun:
            raise BadInput(f"study {name!r} has not ended; --resume {name} goes on with it")
        raise unknown_study(name, study_names(study_folder.storage, RESULTS))
    results = stored_json.read(StudyResults, file, versions=range(1, VERSION + 1))
    command = used_protocol(results, file).command
    for wrong in _contradictions(results):
        raise BadInput(f"{file} contradicts itself: {wrong}; give back the file as it was")
    # An older version wrote the command with its secrets.
    return replace(results, protocol={**results.protocol, "command": without_secrets(command)})


def used_protocol(results: StudyResults, source: Path | None = None) -> UsedProtocol:
    """The part of a study's protocol that code depends on; ``source`` is the file of the results.

    Raises:
        BadInput: a field is missing or of the wrong type.
    """
    where = f"protocol in {source or f'the results of study {results.study!r}'}"
    return stored_json.parse(UsedProtocol, results.protocol, where)


def write(folder: Path, results: StudyResults) -> Path:
    """Write ``results.json`` into the study's folder, whole or not at all; return its path."""
    path = folder / RESULTS
    text = json.dumps(plain(results), indent=2, allow_nan=False)
    with atomic_write(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return path


def plain(value: Any) -> Any:
    """A value of ``study.analysis.result_types`` as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        columns = getattr(value, "columns", None)
        row: dict[str, Any] = {}
        for name in (field.name for field in fields(value)):
            held = plain(getattr(value, name))
            row |= held if name == columns else {name: held}
        return row
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def without_nan(value: Any) -> Any:
    """A copy with None in place of nan and infinity, which JSON lacks: the accuracy of a part
    without questions is nan."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: without_nan(getattr(value, f.name)) for f in fields(value)}
        )
    if isinstance(value, Mapping):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_nan(v) for v in value)
    return value


def _contradictions(results: StudyResults) -> Iterator[str]:
    """Parts of the results that others rely on and that are not there, in words."""
    trials = {trial.trial for trial in results.trials}
    for arm in results.arms:
        for seed in arm.seeds:
            if seed.trial not in trials:
                yield f"trial {seed.trial!r} of arm {arm.arm!r} is not in trials"
        if arm.test:
            if arm.test.get(arm.decides, NOTHING).interval is None or not arm.seeds:
                yield f"arm {arm.arm!r} has a test score without interval or seeds"
            yield from _lacking(f"costs of arm {arm.arm!r}", arm.costs, NEEDED_COSTS)
    yield from _lacking("efficiency.pareto", results.efficiency.pareto, COSTS)
    budget = results.efficiency.budget
    known, named = {arm.arm for arm in results.arms}, set(budget.arms if budget else ())
    named |= {trial.arm for trial in results.trials if trial.kind is Kind.SEARCH}
    parts: list[StudyResults | DatasetResult] = [results, *results.ood]
    for part in parts:
        named |= {name for pair in part.comparisons for name in (pair.first, pair.second)}
        for tested in (arm for arm in part.arms if arm.test):
            yield from _lacking(f"test of arm {tested.arm!r}", tested.test or {}, part.shown)
        for name, scores in part.baselines.named().items():
            yield from _lacking(f"baseline {name}", scores, part.shown)
        for pair in part.comparisons:
            yield from _lacking(f"{pair.first} - {pair.second}", pair.parts, (pair.decides,))
    for name in sorted(named - known):
        yield f"{name!r} is not in arms"


def _lacking(what: str, there: Mapping[str, Any], needed: Iterable[str]) -> Iterator[str]:
    """Sentence on each name that a mapping lacks."""
    return (f"{what} lacks {name}" for name in needed if name not in there)
