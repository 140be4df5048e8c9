"""``python -m study.export NAME``: a study's winner as a folder that others can use.

It holds ``README.md``, a model card; ``trained.safetensors``, what was trained, by its names here;
``tuned.json``, for ``study.predict``; where the methods are peft's, an adapter that
``peft.PeftModel.from_pretrained`` loads; and, where weights of the base were trained that
transformers has other names for, ``base.safetensors``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import checkpoints, faults
from study.paths import STUDY, below
from study.storage import folder_of
from study.ui import ARTIFACTS, default_uri
from trainables.errors import BadInput, unknown
from trainables.secrecy import Parser, guard, without_secrets

if TYPE_CHECKING:
    from study.template import Template
    from trainables.adapter import Written
    from trainables.models.contract import Model
    from trainables.tuned import Description, Tuned
    from trainables.workload import Workload

RESULTS = "results.json"
SMALL_MIB = 256.0
"""A model of which more was trained than this is no adapter: MLflow gets it only on request."""
CARD = Path(__file__).with_name("model_card.md.jinja")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input."""
    given = _parser().parse_args(arguments)
    try:
        given.storage = folder_of(given.storage, given.study)
        results = read_results(given.storage, given.study)
        arm = given.arm or _winner(results)
        out = given.out or below(given.storage / given.study, "export", arm)
        with faults.told(out.parent):
            adapters = export(given.storage / given.study, results, arm, out)
        registered = _register(given, results, arm, out) if given.register else ""
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arm} of study {given.study} is in {out}")
    for name, place in adapters.items():
        print(f"peft adapter{'' if name == 'default' else ' ' + name}: {place}")
    if registered:
        print(f"registered model: {registered}")
    print(f"python -m study.predict {out} --image FILE --question TEXT")
    return 0


def export(study: Path, results: Mapping[str, Any], arm: str, out: Path) -> dict[str, Path]:
    """Write an arm's model into ``out``; whole or not at all. The adapters in peft's form, by name.

    Of the arm's confirmations the one with the lowest validation loss is taken: the test split
    chooses nothing.

    Raises:
        BadInput: no such arm, it was not confirmed, or ``out`` holds something else.
    """
    trial = best_confirmation(results, _arm(results, arm))
    if out.name in ("", "..") or (out.exists() and not out.is_dir()):
        raise BadInput(f"--out {out} names no folder of its own; give one, as export/mine")
    if out.exists() and not (out / "tuned.json").is_file() and any(out.iterdir()):
        raise BadInput(f"--out {out} is not empty and no earlier export; give another folder")
    partial = out.with_name(f".{out.name}.partial-{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot write to --out {out}: {error.strerror}") from None
    try:
        places = write(study, results, trial, partial)
    except Exception:  # on a full disk half of it would take room
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return {name: out / place.relative_to(partial) for name, place in places.items()}


def write(
    study: Path,
    results: Mapping[str, Any],
    trial: Mapping[str, Any],
    folder: Path,
    base: Model | None = None,
) -> Mapping[str, Path]:
    """Write the model of a confirmed trial into an empty folder; as ``export``, and ``rebuild``."""
    from trainables import adapter

    tuned = rebuild(study, results, trial, base)
    tuned.save(folder)
    written = adapter.write(tuned, folder)
    names = {name: place.relative_to(folder) for name, place in written.adapters.items()}
    card = _card(results, trial, tuned, written, names)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return written.adapters


def _register(given: argparse.Namespace, results: Mapping[str, Any], arm: str, out: Path) -> str:
    """Make an arm's export in ``out`` a version of a registered model, with the run of its
    confirmation as source; the version's address. What is one already stays it.

    Raises:
        BadInput: a bad name, or MLflow does not have the study.
    """
    from study.runs import Runs, check

    name, uri = given.register, given.tracking_uri or default_uri(given.storage)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise BadInput(
            f"--register {name!r} must be letters, digits, '.', '_' and '-', at most 100"
        )
    check(uri)
    experiment = Path(results["protocol"]["settings"]["space"]).stem
    runs = Runs(uri, experiment=experiment, artifacts=given.storage / ARTIFACTS)
    trial = best_confirmation(results, _arm(results, arm))
    parent = runs.study(results["study"], results["protocol"].get("identity", ""))
    run = runs.trials(parent.info.run_id).get(trial["trial"]) if parent else None
    if run is None:
        raise BadInput(f"MLflow at {uri} has no run of study {results['study']!r}; --tracking-uri?")
    if not runs.holds_model(run.info.run_id):
        runs.log_model(run.info.run_id, out)
    tags = {"study": results["study"], "arm": arm, "trial": trial["trial"]}
    return runs.register(run.info.run_id, name, tags, results["verdict"])


def small(results: Mapping[str, Any]) -> list[str]:
    """The confirmed trials whose models are small enough to be kept beside their runs."""
    return [
        seed["trial"]
        for arm in results["arms"]
        for seed in arm["seeds"]
        if arm["costs"]["adapter_mib"] <= SMALL_MIB
    ]


def write_all(study: Path, template: Template, trials: Sequence[str], out: Path) -> None:
    """Write the models of confirmed trials of a finished study into folders of their names.

    In a process of its own, whose memory is given back; the driver does without torch. It is forked
    from ``template``, which has the base, or, where that does not fork, loads it.

    Raises:
        BrokenProcessPool: that process was killed, for want of memory mostly.
    """
    task = partial(_write_all, study, trials, out)
    try:
        template.do(task)
    except (OSError, EOFError):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(task).result()


def _write_all(
    study: Path, trials: Sequence[str], out: Path, workload: Workload | None = None
) -> None:
    from trainables import tuned

    results = read_results(study.parent, study.name)
    by_id = {trial["trial"]: trial for trial in results["trials"]}
    base = workload.model if workload else tuned.base(_described(results, by_id[trials[0]]))
    for trial in trials:
        place = below(out, trial)
        shutil.rmtree(place, ignore_errors=True)  # of a process that died at it
        place.mkdir()
        write(study, results, by_id[trial], place, base)


def rebuild(
    study: Path, results: Mapping[str, Any], trial: Mapping[str, Any], base: Model | None = None
) -> Tuned:
    """The tuned model of a confirmed trial, on ``base`` if that is loaded already.

    Raises:
        BadInput: its checkpoint is gone or damaged, or its base is another one.
    """
    from trainables import saved, tuned

    kept = sorted(checkpoints.path(study, trial["trial"]).glob("[0-9]*"))
    if not kept:
        raise BadInput(f"study {study.name!r} holds no checkpoint of trial {trial['trial']}")
    return tuned.build(_described(results, trial), saved.weights(kept[-1]), base)


def _described(results: Mapping[str, Any], trial: Mapping[str, Any]) -> Description:
    from trainables import tuned

    return tuned.Description(
        model=results["protocol"]["settings"]["model"],
        digest=results["protocol"]["model"]["digest"],
        recipe=trial["recipe"],
        seed=trial["seed"],
        precision=results["protocol"]["precision"],
        image_size=results["protocol"]["settings"]["image_size"],
        answer_tokens=results["protocol"]["answer_tokens"],
        beams=results["protocol"]["beams"],
    )


def read_results(storage: Path, name: str) -> dict[str, Any]:
    """What a finished study found.

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


def _winner(results: Mapping[str, Any]) -> str:
    """The arm with the highest test score."""
    first: Mapping[str, Any] = results["arms"][0]
    if not first["seeds"]:
        raise BadInput(
            f"no arm of study {results['study']!r} was confirmed, so there is no model to export: "
            f"{results['verdict']}"
        )
    return str(first["arm"])


def _arm(results: Mapping[str, Any], name: str) -> dict[str, Any]:
    arms: dict[str, dict[str, Any]] = {arm["arm"]: arm for arm in results["arms"]}
    if name not in arms:
        raise unknown("arm", name, arms)
    if not arms[name]["seeds"]:
        raise BadInput(f"arm {name!r} was not confirmed, so there is no model of it")
    return arms[name]


def best_confirmation(results: Mapping[str, Any], arm: Mapping[str, Any]) -> dict[str, Any]:
    """Of an arm's confirmed trials the one with the lowest validation loss."""
    trials: dict[str, dict[str, Any]] = {trial["trial"]: trial for trial in results["trials"]}
    seeds = [trials[seed["trial"]] for seed in arm["seeds"]]
    return min(seeds, key=lambda trial: float(trial["rungs"][-1]["validation_loss"]))


def _card(
    results: Mapping[str, Any],
    trial: Mapping[str, Any],
    tuned: Tuned,
    written: Written,
    adapters: Mapping[str, Path],
) -> str:
    """The model card."""
    from jinja2 import Environment, StrictUndefined

    arm = _arm(results, trial["arm"])
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(CARD.read_text(encoding="utf-8"))
    return template.render(
        r=results,
        arm=arm,
        trial=trial,
        best=best_confirmation(results, arm)["trial"] == trial["trial"],
        recipe=str(tuned.recipe),
        counts=tuned.applied.counts,
        adapters={name: place.as_posix() for name, place in adapters.items()},
        weights=written.weights.name if written.weights else "",
        network=written.network,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m study.export",
        description="Write a study's winner as a folder with a model card, for peft where it can.",
    )
    parser.add_argument("study", metavar="NAME", help="of the study")
    parser.add_argument("--arm", metavar="NAME", help="[the one with the highest test score]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="[in the study's folder]")
    parser.add_argument("--register", metavar="NAME", help="make it a registered model of MLflow")
    parser.add_argument("--storage", default="studies", metavar="DIR|s3://BUCKET/NAME")
    parser.add_argument("--tracking-uri", metavar="URI", help="an MLflow store [in --storage]")
    return parser


if __name__ == "__main__":
    guard()
    sys.exit(main())
