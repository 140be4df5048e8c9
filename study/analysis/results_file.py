"""Reads and writes ``results.json``, which holds what a finished study found."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.storage.paths import STUDY
from trainables.errors import BadInput, unknown
from trainables.secrecy import without_secrets

RESULTS = "results.json"


def read_results(storage: Path, name: str) -> dict[str, Any]:
    """Results of a finished study, as ``results.json`` has them.

    Raises:
        BadInput: there is no such study, or it has not ended.
    """
    path = storage / name / RESULTS
    named = STUDY.fullmatch(name)
    if not (named and path.is_file()):
        if named and (path.parent / "study.json").is_file():
            raise BadInput(f"study {name!r} has not ended; --resume {name} goes on with it")
        raise unknown("study", name, [found.parent.name for found in storage.glob(f"*/{RESULTS}")])
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is no JSON: {error}") from None
    # Of a study that is older than this.
    results["protocol"]["command"] = without_secrets(results["protocol"]["command"])
    return results


RESULTS = "results.json"
VERSION = 1
"""Version of ``results.json`` that ``read`` understands."""


def read(storage: Path, name: str) -> dict[str, Any]:
    """Results of a study, as ``results.json`` has them, after a check of their version.

    Raises:
        BadInput: there is no such study, or its results are no JSON or of another version.
    """
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


RESULTS = "results.json"


def write(folder: Path, results: Mapping[str, Any]) -> Path:
    """Write ``results.json`` into the study's folder, whole or not at all; return its path."""
    path = folder / RESULTS
    partial = path.with_suffix(f".partial-{os.getpid()}")
    text = json.dumps(results, indent=2, allow_nan=False)
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def without_nan(value: Any) -> Any:
    """A copy with null in place of nan and infinity, which JSON lacks: the accuracy of a part
    without questions is nan."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return value
