"""Records how a study was done, for whoever wants to do it again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.config import search_methods
from study.config.begun_study import begun_study
from study.trials.spec import off_default
from trainables.data.common.multiple_choice import usual_way
from trainables.models.common.quantisation import PACKAGE as QUANTISER

if TYPE_CHECKING:
    from study.config.checked_data import CheckedData
    from study.config.definition import StudyDefinition
    from study.planning.study_plan import StudyPlan
    from trainables.audit.audit import Audit
    from trainables.data.common.dataset import Example

PACKAGES = ("torch", "transformers", "peft", "ray", "optuna", "mlflow", "deepspeed")
"""Packages whose versions are noted."""
SETTINGS = (
    *("space", "model", "data", "data_root", "split", "allow_leak", "image_size", "beams", "ood"),
    *("label_smoothing", "questions_per_image", "group_by_length", "trials", "max_examples"),
    *("allowance", "allocate", "seed", "seeds", "objective", "under", "margin", "deepspeed"),
    "precision",
)
"""Settings that are recorded whatever their values. Younger ones are where they are off their
defaults."""
REGIME = ("label_smoothing", "questions_per_image", "group_by_length")
"""Settings of the training that are recorded whatever their values."""


def base(plan: StudyPlan) -> dict[str, str]:
    """Everything besides its point of the space that a trial's numbers depend on."""
    return base_of(
        plan.definition,
        model=plan.model_digest,
        data=plan.data.dataset.digest,
        precision=plan.precision,
        beams=plan.profile.beams,
    )


def base_of(
    definition: StudyDefinition, *, model: str, data: str, precision: str, beams: int
) -> dict[str, str]:
    """What ``base`` returns, made without a plan. ``model`` and ``data`` are digests."""
    found = {
        "model": model,
        "data": data,
        "deepspeed": definition.engine_name,
        "precision": precision,
        "label_smoothing": str(definition.regime.label_smoothing),
        "beams": str(beams),
    }
    # The order counts: trials' ids are made of it.
    trained = off_default(definition.regime, always=("label_smoothing",))
    trained |= off_default(definition.workload.asking)
    return found | {name: str(value) for name, value in trained.items()}


def digest(base: Mapping[str, str]) -> str:
    """Digest of a base, as trials have it; see ``TrialSpec.base``."""
    return hashlib.sha256(json.dumps(base).encode()).hexdigest()[:12]


def describe(plan: StudyPlan, folder: Path) -> dict[str, Any]:
    """Settings, budget, model, data, versions, commit and command, as in ``results.json``.
    ``folder`` is the study's."""
    begun = begun_study(folder)
    definition, profile, dataset = plan.definition, plan.profile, plan.data.dataset
    regime = definition.regime
    not_run = {arm: found.reason for arm, found in plan.nowhere.items()}
    answered = [(example.answer, example.options) for example in dataset.train]
    return {
        "settings": off_default(definition.settings, always=SETTINGS),
        **({"against": plan.space.against} if plan.space.against else {}),
        "budget": {n: v for n, v in asdict(definition.budget).items() if v is not None},
        "deepspeed": definition.engine_name,
        "precision": plan.precision,
        **({"base_bits": asdict(bits)} if (bits := definition.workload.base_bits) else {}),
        **_search_of(definition),
        **off_default(regime, always=REGIME),
        "beams": profile.beams,
        "answer_tokens": profile.answer_tokens,
        "model": {
            "name": profile.model,
            "digest": plan.model_digest,
            "image_size": profile.image_size,
        },
        "data": {
            "name": dataset.name,
            "digest": dataset.digest,
            "questions": {split: len(examples) for split, examples in dataset.splits().items()},
            **({"patients": patients} if (patients := _patients(dataset.test)) else {}),
            "ood": {name: other.digest for name, other in plan.data.ood.items()},
            "findings": [*audit_lines(plan.data.audit)],
            **({"splits": _splits(plan.data)} if plan.data.splits else {}),
            **({"options": way} if (way := usual_way(answered)) else {}),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            **(
                {QUANTISER: importlib.metadata.version(QUANTISER)}
                if definition.workload.base_bits
                else {}
            ),
        },
        **({"not_run": not_run} if not_run else {}),
        "identity": begun.identity,
        "commit": _commit(),
        "command": begun.command,
        "begun": begun.begun,
    }


def audit_lines(audit: Audit) -> tuple[str, ...]:
    """Findings of the audit of a dataset, each in a line."""
    return tuple(f"{finding.severity}: {finding.text}" for finding in audit.findings)


def _splits(data: CheckedData) -> list[dict[str, Any]]:
    """Digest, number of questions of each part, and findings of the audit of each split."""
    return [
        {
            "digest": dataset.digest,
            "questions": {part: len(examples) for part, examples in dataset.splits().items()},
            "findings": [*audit_lines(audit)],
        }
        for dataset, audit in zip(data.splits, data.audits, strict=True)
    ]


def _patients(test: Sequence[Example]) -> int:
    """Number of patients of the test split; 0 if no image has one."""
    return len({example.patient for example in test if example.patient})


def _search_of(definition: StudyDefinition) -> dict[str, str]:
    """Searcher, early stopping and division of trials, where they are not those of the oldest
    studies, which have no such entries."""
    used = {
        "searcher": definition.search,
        "stopper": definition.stop,
        "allocation": definition.allocate,
    }
    oldest = dict(zip(used, (*search_methods.OLDEST, "floor"), strict=True))
    return {name: value for name, value in used.items() if value != oldest[name]}


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
