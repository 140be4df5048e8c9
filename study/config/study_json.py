"""``study.json``: what a study was begun with, written once and compared on resume."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search_spaces.declare import Space
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.storage.paths import STUDY
from study.storage.study_folder import SETTINGS
from trainables.errors import BadInput, unknown
from trainables.secrecy import command_line, without_secrets

PROBE_BYTES = 2**16
"""Number of bytes that are written to see that a storage folder can be written: a study begins with
less."""


def check_resumable(storage: Path, name: str, definition: StudyDefinition) -> None:
    """Check that a study of this name can be begun, or was begun with the same settings.

    Raises:
        BadInput: ``storage`` cannot be written, the name is not allowed, or the study was begun
            with other settings.
    """
    if not STUDY.fullmatch(name):
        raise BadInput(f"--name {name!r} must be letters, digits, '.', '_' and '-', at most 100")
    try:
        storage.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=storage) as probe:
            probe.write(bytes(PROBE_BYTES))
        file = storage / name / SETTINGS
        begun = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    except OSError as error:
        raise BadInput(f"cannot write to --storage {storage}: {error.strerror}") from None
    if begun is None:
        return
    settings, budget = definition.settings, asdict(definition.budget)
    if begun["arms"] != _arms(definition.space) or begun.get("budget", budget) != budget:
        raise BadInput(f"space {settings.space!r} has changed since study {name!r} began")
    for key, value in asdict(settings).items():
        # A study that is older than a setting ran with the setting's default.
        was = begun["settings"].get(key, getattr(Settings, key, None))
        if was != value:
            raise BadInput(
                f"study {name!r} was begun with {key}={was!r}, not {value!r}; "
                f"go on with --resume {name}, or give another --name"
            )


def open_study(
    storage: Path,
    name: str,
    definition: StudyDefinition,
    *,
    run: Collection[str],
    base: Mapping[str, str],
) -> Path:
    """Open the folder of a study that has passed ``check_resumable``, and create it if it is new.
    ``study.json`` is written when the study begins and never changed. It holds the study's identity
    (see ``identity``), settings, command and start time, the arms that are run (``run``) of those
    of its space, and what its numbers depend on (``base``).

    Raises:
        BadInput: the study was begun on another base, or with other arms.
        OSError: it cannot be written; then nothing of it is there.
    """
    folder = storage / name
    folder.mkdir(exist_ok=True)
    if not (folder / SETTINGS).exists():
        content = {
            "version": 1,
            "identity": uuid.uuid4().hex,
            "settings": asdict(definition.settings),
            "arms": _arms(definition.space),
            "run": sorted(run),
            "budget": asdict(definition.budget),
            "base": dict(base),
            "command": command_line("study.launch", sys.argv[1:]),
            "begun": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        _write(folder, content)
    begun = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    command = without_secrets(begun["command"])
    if begun["command"] != command:  # a study that is older than this
        begun["command"] = command
        _write(folder, begun)
    now = {"arms": ", ".join(sorted(run)), **base}
    for key, value in now.items():
        was = ", ".join(begun.get("run", sorted(run))) if key == "arms" else begun["base"][key]
        if was != value:
            raise BadInput(
                f"study {name!r} was begun with {key} {was}, but here it is {value}; "
                "go on where it began, or begin another study"
            )
    return folder


def identity(folder: Path) -> str:
    """Identity of a study among all studies, whatever their names; empty for a study that is older
    than this field."""
    begun = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return str(begun.get("identity", ""))


def read(storage: Path, name: str) -> Settings:
    """The settings of a study that was begun.

    Raises:
        BadInput: there is no study of that name.
    """
    file = storage / name / SETTINGS
    if not (STUDY.fullmatch(name) and file.is_file()):
        raise unknown("study", name, [path.parent.name for path in storage.glob(f"*/{SETTINGS}")])
    return Settings(**json.loads(file.read_text(encoding="utf-8"))["settings"])


def precision(storage: Path, name: str, settings: Settings) -> str:
    """Precision in which trials compute; ``auto`` leaves it to the devices. A study goes on in the
    precision that it began with, also on other devices."""
    file = storage / name / SETTINGS
    if settings.precision != "auto" or not file.is_file():
        return settings.precision
    return str(json.loads(file.read_text(encoding="utf-8"))["base"]["precision"])


def free_name(storage: Path, settings: Settings) -> str:
    """``<space>-<data>-<number>``, with the first number that is free."""
    stem = f"{Path(settings.space).stem}-{settings.data.replace(',', '-')}"
    taken = {path.name for path in storage.glob(f"{stem}-*")} if storage.is_dir() else set()
    return next(n for n in (f"{stem}-{i:03d}" for i in range(1, 10**6)) if n not in taken)


def _arms(space: Space) -> dict[str, Any]:
    """The arms as plain values, by which a change of the space's file is noticed."""
    return {
        name: {
            "lr": repr(arm.lr),
            **{
                slot: [ranges.name, {k: repr(v) for k, v in sorted(ranges.settings.items())}]
                for slot, ranges in arm.slots.items()
            },
        }
        for name, arm in space.arms.items()
    }


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    partial = folder / f"{SETTINGS}.partial-{os.getpid()}"
    try:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / SETTINGS)
    except OSError:  # the disk is full, say: half a study would be in the way of a whole one
        partial.unlink(missing_ok=True)
        with suppress(OSError):  # it stays if there is more in it
            folder.rmdir()
        raise
