"""``study.json``: what a study was begun with, written once and compared on resume."""

from __future__ import annotations

import ast
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Final

from search_spaces.declare import (
    Arm,
    Budget,
    ByBand,
    Choice,
    LogUniform,
    Space,
    Uniform,
    method,
    training,
)
from study.config import search_methods, spaces
from study.config.definition import StudyDefinition
from study.config.settings import YOUNG, Settings
from study.storage.paths import atomic_write, check_study_name
from study.storage.study_folder import SETTINGS, StudyFolder, study_names
from study.trials.spec import off_default
from trainables import stored_json
from trainables.errors import BadInput, unknown
from trainables.secrecy import command_line, without_secrets

PROBE_BYTES = 2**16
"""Number of bytes that are written to see that a storage folder can be written: a study begins with
less."""

CHANGED = {
    "model": " (its weights, configuration, tokenizer, prompt or image processing have changed)",
    "data": " (its questions, answers, images or splits have changed)",
}
"""Key of a study's base -> what may have changed if its value has."""
VERSION: Final = 1
"""Version of the format of ``study.json``."""


@dataclass(frozen=True, kw_only=True)
class BegunStudy:
    """Content of ``study.json``. Fields with defaults were added after the first studies."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    version: int = VERSION
    identity: str = ""
    """Identity of the study among all studies, whatever their names."""
    settings: Settings
    arms: dict[str, Any]
    """Arms of the space as plain values, by which a change of the space's file is noticed."""
    run: list[str] | None = None
    """Names of the arms that are run; None: all of them."""
    budget: Budget | None = None
    """Budget of the study; None: it was not noted."""
    search: str = search_methods.OLDEST[0]
    """Searcher of the study."""
    stop: str = search_methods.OLDEST[1]
    """Rule of early stopping of the study."""
    base: dict[str, str]
    """What the study's numbers depend on besides its settings."""
    command: str
    """Command that began the study, without secrets."""
    begun: str
    """Local time at which the study began."""


def begun_study(folder: Path) -> BegunStudy:
    """Content of ``study.json`` in a study's folder. Settings that are younger than the study have
    their defaults, with which it ran.

    Raises:
        BadInput: the file is damaged, or a newer version or another program wrote it.
    """
    return stored_json.read(BegunStudy, folder / SETTINGS, versions=[VERSION])


def parse_begun(content: bytes, source: str) -> BegunStudy:
    """The same as ``begun_study``, of the content of a ``study.json`` that lies elsewhere.

    Raises:
        BadInput: as ``begun_study`` does.
    """
    return stored_json.read_content(BegunStudy, content, source, versions=[VERSION])


def check_resumable(study_folder: StudyFolder, definition: StudyDefinition) -> None:
    """Check that a study of this name can be begun, or was begun with the same settings.

    Raises:
        BadInput: the storage cannot be written, the name is not allowed, or the study was begun
            with other settings.
    """
    name, storage = study_folder.name, study_folder.local_storage
    check_study_name(storage, name)
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
    for key, value in asdict(settings).items():
        was = getattr(begun.settings, key)
        if was != value:
            raise BadInput(
                f"study {name!r} was begun with {key}={was!r}, not {value!r}; "
                f"go on with --resume {name}, or give another --name"
            )
    space = _space_as_begun(begun, definition)
    if begun.arms != _arms(space) or budget != definition.budget:
        raise BadInput(f"space {settings.space!r} has changed since study {name!r} began")


def open_study(
    study_folder: StudyFolder,
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
        OSError: the file cannot be written; no folder is left behind.
    """
    folder, name = study_folder.path, study_folder.name
    folder.mkdir(exist_ok=True)
    if (folder / SETTINGS).exists():
        begun = begun_study(folder)
        command = without_secrets(begun.command)
        if begun.command != command:  # a study that is older than this
            content = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            _write(folder, {**content, "command": command})
    else:
        begun = BegunStudy(
            identity=uuid.uuid4().hex,
            settings=definition.settings,
            arms=_arms(definition.space),
            run=sorted(run),
            budget=definition.budget,
            search=definition.search,
            stop=definition.stop,
            base=dict(base),
            command=command_line("study.launch", sys.argv[1:]),
            begun=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        )
        older = {field.name for field in fields(Settings)} - {*YOUNG}
        _write(folder, asdict(begun) | {"settings": off_default(begun.settings, always=older)})
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
        raise unknown("study", study_folder.name, study_names(study_folder.storage))
    return begun_study(study_folder.path).settings


def as_begun(study_folder: StudyFolder, definition: StudyDefinition) -> StudyDefinition:
    """The definition of a study as it goes on: in the precision that it began with, also on other
    devices, with a digest of the version that its model had then, with the searcher and the early
    stopping that were the project's then, and with its own arms where the project's space has
    others by now."""
    if not study_folder.begun:
        return definition
    begun = begun_study(study_folder.path)
    base = begun.base
    precision = definition.precision
    if precision == "auto":
        precision = base.get("precision", precision)
    return replace(
        definition,
        precision=precision,
        begun_model=base.get("model", ""),
        search=begun.search,
        stop=begun.stop,
        space=_space_as_begun(begun, definition),
    )


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
            **(
                {"training": {name: repr(v) for name, v in sorted(arm.training.items())}}
                if arm.training
                else {}
            ),
            **{
                slot: [ranges.name, {k: repr(v) for k, v in sorted(ranges.settings.items())}]
                for slot, ranges in arm.slots.items()
            },
        }
        for name, arm in space.arms.items()
    }


def _space_as_begun(begun: BegunStudy, definition: StudyDefinition) -> Space:
    """The space with the arms with which a study began, if a space of the project has others by
    now. A file of the user's own stays as it is, and so does a space whose arms cannot be read."""
    space, own_file = definition.space, definition.settings.space.endswith(".py")
    if own_file or begun.arms == _arms(space):
        return space
    try:
        arms = {name: _arm(plain) for name, plain in begun.arms.items()}
        for arm in arms.values():
            spaces.check(arm)
    except (AttributeError, KeyError, SyntaxError, TypeError, ValueError):
        return space
    return replace(space, arms=arms, training=None)


def _arm(plain: Mapping[str, Any]) -> Arm:
    """The arm of which ``_arms`` made these plain values.

    Raises:
        AttributeError, KeyError, SyntaxError, TypeError, ValueError: it made no such values.
    """
    slots = {
        slot: method(tuning[0], **{name: _value(text) for name, text in tuning[1].items()})
        for slot, tuning in plain.items()
        if slot not in ("lr", "training")
    }
    trained = {name: _value(text) for name, text in plain.get("training", {}).items()}
    return Arm(lr=_value(plain["lr"]), training=training(**trained), **slots)


def _value(text: str) -> Any:
    """The value or range whose ``repr`` a text is.

    Raises:
        SyntaxError, TypeError, ValueError: the text is not that of a value or range.
    """

    def value_of(node: ast.expr) -> Any:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            return ast.literal_eval(node)
        parts = {str(part.arg): value_of(part.value) for part in node.keywords}
        match node.func.id:
            case "Choice":
                return Choice(*parts["values"])
            case "Uniform":
                return Uniform(**parts)
            case "LogUniform":
                return LogUniform(**parts)
            case "ByBand":
                return ByBand(**parts)
        raise ValueError(f"{node.func.id} is no range")

    return value_of(ast.parse(text, mode="eval").body)


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    try:
        with atomic_write(folder / SETTINGS) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError:  # the disk is full, say: half a study would be in the way of a whole one
        with suppress(OSError):  # it stays if there is more in it
            folder.rmdir()
        raise
