"""How a study was done, for whoever wants to do it again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.settings import FILE, Settings

if TYPE_CHECKING:
    from study.planned import Plan
    from trainables.data.dataset import Dataset

PACKAGES = ("torch", "transformers", "peft", "ray", "optuna", "mlflow", "deepspeed")


def base(settings: Settings, plan: Plan) -> dict[str, str]:
    """What else than its point of the space a trial's numbers depend on."""
    found = {
        "model": plan.survey.digest,
        "data": plan.dataset.digest,
        "deepspeed": plan.deepspeed,
        "precision": plan.precision,
        "label_smoothing": str(settings.label_smoothing),
        "beams": str(plan.survey.beams),
    }
    if settings.questions_per_image > 1:  # studies that are older than this setting go on
        found["questions_per_image"] = str(settings.questions_per_image)
    if settings.group_by_length:
        found["group_by_length"] = "True"
    return found


def describe(
    settings: Settings, plan: Plan, others: Mapping[str, Dataset], folder: Path
) -> dict[str, Any]:
    """Settings, budget, model, data, versions, commit and command; see ``results.json``.

    ``others`` are the datasets that confirmed trials are scored on too.
    """
    begun = json.loads((folder / FILE).read_text(encoding="utf-8"))
    survey, dataset = plan.survey, plan.dataset
    not_run = {arm: found.reason for arm, found in plan.nowhere.items()}
    return {
        "settings": asdict(settings),
        "budget": asdict(plan.budget),
        "deepspeed": plan.deepspeed,
        "precision": plan.precision,
        "label_smoothing": settings.label_smoothing,
        "questions_per_image": settings.questions_per_image,
        "group_by_length": settings.group_by_length,
        "beams": survey.beams,
        "answer_tokens": survey.answer_tokens,
        "model": {
            "name": survey.model,
            "digest": survey.digest,
            "image_size": survey.image_size,
        },
        "data": {
            "name": dataset.name,
            "digest": dataset.digest,
            "questions": {split: len(examples) for split, examples in dataset.splits().items()},
            "ood": {name: other.digest for name, other in others.items()},
            "findings": [f"{f.severity}: {f.text}" for f in plan.audit.findings],
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        **({"not_run": not_run} if not_run else {}),
        "identity": begun.get("identity", ""),
        "commit": _commit(),
        "command": begun["command"],
        "begun": begun["begun"],
    }


def _commit() -> str:
    """The git commit of this code, ``-dirty`` if it was changed; empty outside of a checkout."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return os.environ.get("STUDY_COMMIT", "")
    return found.stdout.strip() or os.environ.get("STUDY_COMMIT", "")
