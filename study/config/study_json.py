"""``study.json``: what a study was begun with, written once and compared on resume."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from study.config.begun_study import BegunStudy, arms_plain, begun_study
from study.config.definition import StudyDefinition
from study.config.search_methods import AUTO
from study.config.settings import YOUNG, Settings
from study.storage.paths import atomic_write, check_study_name, nearest
from study.storage.study_folder import SETTINGS, StudyFolder, study_names, unknown_study
from study.trials.spec import off_default
from trainables.errors import BadInput
from trainables.secrecy import command_line, without_secrets

PROBE_BYTES = 2**16
"""Number of bytes that are written to see that a storage folder can be written: a study begins with
less."""

LONGEST_STEM = 90
"""Letters of the name of a new study before its number, at most: a name has 100."""

CHANGED = {
    "model": " (its weights, configuration, tokenizer, prompt or image processing have changed)",
    "data": " (its questions, answers, images or splits have changed)",
}
"""Key of a study's base -> what may have changed if its value has."""


def check_place(study_folder: StudyFolder) -> None:
    """Check, without writing, that a study may have its name and its place.

    Raises:
        BadInput: the name is not allowed, or the storage cannot be a folder that is written to.
    """
    storage = study_folder.local_storage
    check_study_name(storage, study_folder.name)
    there = nearest(storage)
    if not there.is_dir():
        raise BadInput(f"cannot write to --storage {storage}: {there} is no folder")
    try:
        tempfile.TemporaryFile(dir=there).close()  # without a name: nothing in the folder changes
    except OSError as error:
        raise BadInput(f"cannot write to --storage {storage}: {error.strerror}") from None


def check_resumable(study_folder: StudyFolder, definition: StudyDefinition) -> None:
    """Check that a study of this name can be begun, or was begun with the same settings.

    Raises:
        BadInput: the storage cannot be written, the name is not allowed, or the study was begun
            with other settings.
    """
    name, storage = study_folder.name, study_folder.local_storage
    check_place(study_folder)
    try:
        storage.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=storage) as probe:
            probe.write(bytes(PROBE_BYTES))
        begun = begun_study(study_folder.path) if study_folder.begun else None
    except OSError as error:
        raise BadInput(f"cannot write to --storage {storage}: {error.strerror}") from None
    if begun is None:
        return
    settings, budget = definition.settings, begun.budget or definition.budget
    if begun.settings.allocate != settings.allocate == AUTO:  # older than the choice by the project
        settings = replace(settings, allocate=begun.settings.allocate)
    for key, value in asdict(settings).items():
        was = getattr(begun.settings, key)
        if key == "seeds" and value > was == 1:  # see ``open_study``
            continue
        if was != value:
            raise BadInput(
                f"study {name!r} was begun with {key}={was!r}, not {value!r}; "
                f"go on with --resume {name}, or give another --name"
            )
    was_so = (begun.arms, begun.against, budget)
    if was_so != (arms_plain(definition.space), definition.space.against, definition.budget):
        raise BadInput(f"space {settings.space!r} has changed since study {name!r} began")


def open_study(
    study_folder: StudyFolder,
    definition: StudyDefinition,
    *,
    run: Collection[str],
    base: Mapping[str, str],
) -> Path:
    """Open the folder of a study that has passed ``check_resumable``, and create it if it is new.
    ``study.json`` is written when the study begins, and changed only where a study of one seed gets
    more of them. It holds the study's identity
    (see ``identity``), settings, command and start time, the arms that are run (``run``) of those
    of its space, and what its numbers depend on (``base``).

    Raises:
        BadInput: the study was begun on another base, or with other arms.
        OSError: the file cannot be written; no folder is left behind.
    """
    folder, name = study_folder.path, study_folder.name
    folder.mkdir(exist_ok=True)
    if (folder / SETTINGS).exists():
        begun = begun_study(folder)
        command = without_secrets(begun.command)
        seeds = definition.settings.seeds
        # A study that is older than this rule, or one of one seed that gets more.
        if begun.command != command or begun.settings.seeds != seeds:
            content = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            asked = {**content["settings"], "seeds": seeds}
            _write(folder, {**content, "settings": asked, "command": command})
    else:
        declared = [*definition.space.declared]
        begun = BegunStudy(
            identity=uuid.uuid4().hex,
            settings=definition.settings,
            arms=arms_plain(definition.space),
            run=sorted(run),
            declared=None if declared == [*definition.space.arms] else declared,
            against=definition.space.against,
            budget=definition.budget,
            search=definition.search,
            stop=definition.stop,
            allocate=definition.allocate,
            times_if_diverged=definition.times_if_diverged,
            times_if_collapsed=definition.times_if_collapsed,
            base=dict(base),
            command=command_line("study.launch", sys.argv[1:]),
            begun=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        )
        older = {field.name for field in fields(Settings)} - {*YOUNG}
        content = asdict(begun) | {"settings": off_default(begun.settings, always=older)}
        for name in ("declared", "against"):  # younger than the first studies, too
            if content[name] is None:
                del content[name]
        if definition.budget.epochs is None:
            del content["budget"]["epochs"]
        _write(folder, content)
    arms = sorted(run)
    now = {"arms": ", ".join(arms), **base}
    then = {"arms": ", ".join(arms if begun.run is None else begun.run), **begun.base}
    for key, value in now.items():
        if then.get(key) != value:
            raise BadInput(
                f"study {name!r} was begun with {key} {then.get(key, 'unknown')}, but here it is "
                f"{value}{CHANGED.get(key, '')}; go on where it began, or begin another study"
            )
    return folder


def identity(folder: Path) -> str:
    """Identity of a study among all studies, whatever their names; empty for a study that is older
    than this field."""
    return begun_study(folder).identity


def read(study_folder: StudyFolder) -> Settings:
    """The settings of a study that was begun.

    Raises:
        BadInput: there is no study of that name, or its ``study.json`` cannot be read.
    """
    if not study_folder.begun:
        raise unknown_study(study_folder.name, study_names(study_folder.storage))
    return begun_study(study_folder.path).settings


def free_name(storage: Path, settings: Settings) -> str:
    """``<space>-<data>-<number>``, with the first number that is free. Of the name of a space's
    file, what no study's name may have is left out."""
    space = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(settings.space).stem).strip("-._") or "space"
    stem = f"{space}-{settings.data.replace(',', '-')}"[:LONGEST_STEM]
    taken = {path.name for path in storage.glob(f"{stem}-*")} if storage.is_dir() else set()
    return next(n for n in (f"{stem}-{i:03d}" for i in range(1, 10**6)) if n not in taken)


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    try:
        with atomic_write(folder / SETTINGS) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError:  # the disk is full, say: half a study would be in the way of a whole one
        with suppress(OSError):  # it stays if there is more in it
            folder.rmdir()
        raise
