"""Records how a study was done, for whoever wants to do it again."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.config.study_json import begun_study

if TYPE_CHECKING:
    from study.planning.study_plan import StudyPlan

PACKAGES = ("torch", "transformers", "peft", "ray", "optuna", "mlflow", "deepspeed")
"""Packages whose versions are noted."""


def base(plan: StudyPlan) -> dict[str, str]:
    """Everything besides its point of the space that a trial's numbers depend on."""
    definition, regime = plan.definition, plan.definition.regime
    found = {
        "model": plan.profile.digest,
        "data": plan.data.dataset.digest,
        "deepspeed": definition.engine_name,
        "precision": plan.precision,
        "label_smoothing": str(regime.label_smoothing),
        "beams": str(plan.profile.beams),
    }
    if regime.questions_per_image > 1:  # left out at its default, so that older studies go on
        found["questions_per_image"] = str(regime.questions_per_image)
    if regime.group_by_length:
        found["group_by_length"] = "True"
    return found


def describe(plan: StudyPlan, folder: Path) -> dict[str, Any]:
    """Settings, budget, model, data, versions, commit and command, as in ``results.json``.
    ``folder`` is the study's."""
    begun = begun_study(folder)
    definition, profile, dataset = plan.definition, plan.profile, plan.data.dataset
    regime = definition.regime
    not_run = {arm: found.reason for arm, found in plan.nowhere.items()}
    return {
        "settings": asdict(definition.settings),
        "budget": asdict(definition.budget),
        "deepspeed": definition.engine_name,
        "precision": plan.precision,
        "label_smoothing": regime.label_smoothing,
        "questions_per_image": regime.questions_per_image,
        "group_by_length": regime.group_by_length,
        "beams": profile.beams,
        "answer_tokens": profile.answer_tokens,
        "model": {
            "name": profile.model,
            "digest": profile.digest,
            "image_size": profile.image_size,
        },
        "data": {
            "name": dataset.name,
            "digest": dataset.digest,
            "questions": {split: len(examples) for split, examples in dataset.splits().items()},
            "ood": {name: other.digest for name, other in plan.data.ood.items()},
            "findings": [f"{f.severity}: {f.text}" for f in plan.data.audit.findings],
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        **({"not_run": not_run} if not_run else {}),
        "identity": begun.identity,
        "commit": _commit(),
        "command": begun.command,
        "begun": begun.begun,
    }


def _commit() -> str:
    """The git commit of this code, with ``-dirty`` if the code was changed. Outside of a checkout
    it is ``STUDY_COMMIT`` of the environment, or empty."""
    here = Path(__file__).parents[1]
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return os.environ.get("STUDY_COMMIT", "")
    return found.stdout.strip() or os.environ.get("STUDY_COMMIT", "")
