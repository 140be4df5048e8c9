"""Writes the models of confirmed trials as folders with a model card."""

from __future__ import annotations

import glob
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from study.analysis import results_file
from study.storage.paths import partial_path, real_path, safe_join, was_left
from study.storage.study_folder import StudyFolder
from study.trials.spec import off_default
from study.trials.text import settings_text
from trainables.data.common.wording import DEFAULT_ASKING, Asking
from trainables.engine.training_settings import TrainingSettings
from trainables.errors import BadInput, did_you_mean
from trainables.export import tuned_json

if TYPE_CHECKING:
    from study.analysis.result_types import ArmResult, StudyResults, TrialResult
    from trainables.export.peft_adapter import PeftFiles
    from trainables.export.tuned_json import Description
    from trainables.export.tuned_model import TunedModel
    from trainables.model_contract import Model
    from trainables.workload import Workload

SMALL_MIB = 256.0
"""Size in MiB of trained weights up to which a model is written to MLflow unasked. A larger one is
no adapter, and is written only on request."""
CARD = Path(__file__).with_name("model_card.md.jinja")
"""Template of the model card."""
RunWithModel = Callable[[Callable[["Workload"], object]], None]
"""Function that runs a task in a process that has the base model and the data, and waits until it
is done. It raises OSError or EOFError if there is no such process, and what the task raises."""


def export(
    study_folder: StudyFolder, results: StudyResults, arm: ArmResult, out: Path
) -> dict[str, Path]:
    """Write the model of a confirmed arm into the folder ``out``, whole or not at all.

    Of the arm's confirmations, the one with the lowest validation loss is taken: the test split
    chooses nothing.

    Returns:
        Name -> folder of the model's adapters in peft's form.

    Raises:
        BadInput: ``out`` holds something else or cannot be written, or the model cannot be rebuilt.
    """
    trial = best_confirmation(results, arm)
    if out.name in ("", "..") or ((out.exists() or out.is_symlink()) and not out.is_dir()):
        raise BadInput(f"--out {out} names no folder of its own; give one, as export/mine")
    if out.exists() and not (out / tuned_json.FILE).is_file() and any(out.iterdir()):
        raise BadInput(f"--out {out} is not empty and no earlier export; give another folder")
    whole = real_path(out) if out.is_symlink() else out  # no folder can take the place of a link
    partial = partial_path(whole)
    _remove_left(whole, partial)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot write to --out {out}: {error.strerror}") from None
    try:
        places = write(study_folder, results, trial, partial)
    except BaseException:  # half of it would take room, also of one that was interrupted
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(whole, ignore_errors=True)
    partial.rename(whole)
    return {name: out / place.relative_to(partial) for name, place in places.items()}


def _remove_left(whole: Path, partial: Path) -> None:
    """Remove what exports of ``whole`` that were killed have left beside it. Where processes are
    numbered anew, as in a container, one of them may have had this process's ``partial``."""
    for beside in whole.parent.glob(f".{glob.escape(whole.name)}.partial-*"):
        if beside == partial or was_left(beside.name):
            shutil.rmtree(beside, ignore_errors=True)


def write(
    study_folder: StudyFolder,
    results: StudyResults,
    trial: TrialResult,
    folder: Path,
    base: Model | None = None,
) -> Mapping[str, Path]:
    """Write the model of a confirmed trial into an empty folder. ``base`` is the base model, if it
    is loaded already.

    Returns:
        Name -> folder of the model's adapters in peft's form.

    Raises:
        BadInput: the trial's checkpoint is gone, or its base model is another one now.
    """
    from trainables.export import peft_adapter

    tuned = rebuild(study_folder, results, trial, base)
    tuned.save(folder)
    written = peft_adapter.write(tuned, folder)
    names = {name: place.relative_to(folder) for name, place in written.adapters.items()}
    card = _card(results, trial, tuned, written, names)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return written.adapters


def small_models(results: StudyResults) -> list[str]:
    """Ids of the confirmed trials whose models are small enough to be stored with their runs."""
    return [
        seed.trial
        for arm in results.arms
        for seed in arm.seeds
        if arm.costs["adapter_mib"] <= SMALL_MIB
    ]


def write_all(
    study_folder: StudyFolder, run: RunWithModel, trials: Sequence[str], out: Path
) -> None:
    """Write the models of confirmed trials of a finished study into folders named after the trials.

    A process of its own does it, whose memory is released afterwards, so that the driver needs no
    torch. ``run`` has a process do it that has the base model already; where ``run`` cannot, a new
    process loads the base model.

    Raises:
        BrokenProcessPool: that process was killed, mostly for lack of memory.
    """
    task = partial(_write_all, study_folder, trials, out)
    try:
        run(task)
    except (OSError, EOFError):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(task).result()


def _write_all(
    study_folder: StudyFolder, trials: Sequence[str], out: Path, workload: Workload | None = None
) -> None:
    """Write the models of confirmed trials; the base model is that of ``workload``, if given."""
    from trainables.export import tuned_model

    results = results_file.read(study_folder)
    first = _described(results, results.trial(trials[0]))
    base = workload.model if workload else tuned_model.base(first)
    for trial in trials:
        place = safe_join(out, trial)
        shutil.rmtree(place, ignore_errors=True)  # of a process that died at it
        place.mkdir()
        write(study_folder, results, results.trial(trial), place, base)


def rebuild(
    study_folder: StudyFolder, results: StudyResults, trial: TrialResult, base: Model | None = None
) -> TunedModel:
    """The tuned model of a confirmed trial, built on ``base`` if that is loaded already.

    Raises:
        BadInput: its checkpoint is gone or damaged, or its base is another one.
    """
    from trainables.export import tuned_model
    from trainables.training import checkpoint

    kept = sorted(study_folder.checkpoints(trial.trial).glob("[0-9]*"))
    if not kept:
        raise BadInput(f"study {study_folder.name!r} holds no checkpoint of trial {trial.trial}")
    return tuned_model.build(_described(results, trial), checkpoint.weights(kept[-1]), base)


def _described(results: StudyResults, trial: TrialResult) -> Description:
    """Description of a trial's tuned model: its base, recipe, seed and settings."""
    from trainables.export.tuned_json import Description

    protocol = results_file.used_protocol(results)
    of_study = Asking(prompt=protocol.settings.prompt, system=protocol.settings.system)
    asking = TrainingSettings.from_plain(trial.training).asking(of_study)
    return Description(
        model=protocol.settings.model,
        digest=protocol.model.digest,
        recipe=trial.recipe,
        seed=trial.seed,
        precision=protocol.precision,
        base_bits=protocol.base_bits,
        image_size=protocol.settings.image_size,
        answer_tokens=protocol.answer_tokens,
        beams=protocol.beams,
        prompt=asking.prompt,
        system=asking.system,
        choose=protocol.settings.choose,
        options=protocol.data.options,
    )


def arm_of(results: StudyResults, name: str) -> ArmResult:
    """The result of a confirmed arm.

    Raises:
        BadInput: there is no such arm, or it was not confirmed.
    """
    arms = {arm.arm: arm for arm in results.arms}
    if name not in arms:
        raise BadInput(
            f"there is no arm {name!r} in study {results.study}; {did_you_mean(name, arms)}"
            f"it has: {', '.join(arms)}"
        )
    if not arms[name].seeds:
        raise BadInput(f"arm {name!r} was not confirmed, so there is no model of it")
    return arms[name]


def best_confirmation(results: StudyResults, arm: ArmResult) -> TrialResult:
    """The confirmed trial of an arm that has the lowest validation loss; of several splits of the
    data, whose losses are of other questions, in the first."""

    def loss(trial: TrialResult) -> float:
        last = trial.rungs[-1].validation_loss if trial.rungs else None
        return math.inf if last is None else last

    confirmed = [results.trial(seed.trial) for seed in arm.seeds]
    if results.splits > 1:
        confirmed = [trial for trial in confirmed if trial.search == 0]
    return min(confirmed, key=loss)


def _card(
    results: StudyResults,
    trial: TrialResult,
    tuned: TunedModel,
    written: PeftFiles,
    adapters: Mapping[str, Path],
) -> str:
    """The text of the model card."""
    from jinja2 import Environment, StrictUndefined

    arm = arm_of(results, trial.arm)
    held = next(p.dtype for p in tuned.model.network.parameters() if p.is_floating_point())
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(CARD.read_text(encoding="utf-8"))
    return template.render(
        r=results,
        protocol=results_file.used_protocol(results),
        settings=settings_text,
        arm=arm,
        trial=trial,
        best=best_confirmation(results, arm) is trial,
        recipe=str(tuned.recipe),
        asking=json.dumps(off_default(tuned.described.asking), indent=2, ensure_ascii=False)
        if tuned.described.asking != DEFAULT_ASKING
        else "",
        described=tuned.described,
        image_size=tuned.model.image_size,
        counts=tuned.applied.counts,
        adapters={name: place.as_posix() for name, place in adapters.items()},
        weights=written.weights.name if written.weights else "",
        network=written.network,
        skipped=written.skipped,
        dtype=str(held).removeprefix("torch."),
        computed={"bf16": "bfloat16", "fp32": "float32"}[tuned.described.precision],
    )
