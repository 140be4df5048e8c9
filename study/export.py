"""``python -m study.export NAME``: write a study's winner as a folder that others can use.

The folder holds:

* ``README.md``, a model card;
* ``trained.safetensors``, the trained weights by their names in this code;
* ``tuned.json``, for ``study.predict``;
* where the methods are peft's, an adapter that ``peft.PeftModel.from_pretrained`` loads;
* where weights of the base were trained that transformers names differently,
  ``base.safetensors``.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.analysis import results_file
from study.config.deployment import Places
from study.inventory.recorded import recorded_store
from study.reporting.model_export import arm_of, best_confirmation, export
from study.storage import faults
from study.storage.mirror import fetch_study
from study.storage.study_folder import StudyFolder
from study.tracking.mlflow_store import named_store, tracking_address
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse

if TYPE_CHECKING:
    from study.analysis.result_types import ArmResult, StudyResults


@dataclass(frozen=True, kw_only=True)
class Request(Places):
    """What to export, and where to."""

    study: str = option(positional=True, metavar="NAME", help="name of the study")
    arm: str | None = option(None, metavar="NAME", default="the one with the highest test score")
    out: Path | None = option(None, metavar="DIR", default="in the study's folder")
    register: str | None = option(None, metavar="NAME", help="make it a registered model of MLflow")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input."""
    given = parse(_parser(), arguments, Request)
    uri = _checked_registry(given, given.study, given.register) if given.register else ""
    study_folder = fetch_study(given.storage, given.study)
    results = results_file.read(study_folder)
    arm = arm_of(results, given.arm) if given.arm else _winner(results)
    out = given.out or study_folder.export(arm.arm)
    with faults.raised_as_bad_input(out.parent):
        adapters = export(study_folder, results, arm, out)
    registered = ""
    if given.register:
        registered = _register(given.register, uri, study_folder, results, arm, out)
    print(f"{arm.arm} of study {given.study} is in {out}")
    for name, place in adapters.items():
        print(f"peft adapter{'' if name == 'default' else ' ' + name}: {place}")
    if registered:
        print(f"registered model: {registered}")
    print(f"python -m study.predict {out} --image FILE --question TEXT")
    return 0


def _checked_registry(places: Places, study: str, name: str) -> str:
    """Address of the MLflow store in which ``--register`` names a model ``name``: that of the
    study, unless the user named one.

    Raises:
        BadInput: the name is not allowed, or nothing answers at the address.
    """
    from study.tracking.mlflow_store import check

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise BadInput(
            f"--register {name!r} must be letters, digits, '.', '_' and '-', at most 100"
        )
    named = named_store(places.tracking_uri)
    uri = tracking_address(places.storage, named or recorded_store(places.storage, study))
    check(uri)
    return uri


def _register(
    name: str,
    uri: str,
    study_folder: StudyFolder,
    results: StudyResults,
    arm: ArmResult,
    out: Path,
) -> str:
    """Register the export of an arm in ``out`` as a version of an MLflow model, with the run of the
    arm's best confirmation as source. Return the version's address. An export that is registered
    already is not registered again.

    Raises:
        BadInput: MLflow does not have the study.
    """
    from study.tracking.mlflow_runs import runs_of_space

    protocol = results_file.used_protocol(results)
    runs = runs_of_space(uri, protocol.settings.space, study_folder)
    trial = best_confirmation(results, arm)
    parent = runs.study(results.study, protocol.identity)
    run = runs.trials(parent.info.run_id).get(trial.trial) if parent else None
    if run is None:
        raise BadInput(f"MLflow at {uri} has no run of study {results.study!r}; --tracking-uri?")
    if not runs.holds_model(run.info.run_id):
        runs.log_model(run.info.run_id, out)
    tags = {"study": results.study, "arm": arm.arm, "trial": trial.trial}
    return runs.register(run.info.run_id, name, tags, results.verdict)


def _winner(results: StudyResults) -> ArmResult:
    """The arm with the highest test score."""
    if not results.confirmed:
        raise BadInput(
            f"no arm of study {results.study!r} was confirmed, so there is no model to export: "
            f"{' '.join(results.verdict.split())}"
        )
    return results.confirmed[0]


def _parser() -> Parser:
    return Parser(
        prog="python -m study.export",
        description="Write a study's winner as a folder with a model card, for peft where it can.",
    )


if __name__ == "__main__":
    sys.exit(main())
