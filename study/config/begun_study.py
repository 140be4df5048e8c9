"""Content of ``study.json``, and the space of a study that has begun."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from study.config.settings import Settings
from study.storage.study_folder import SETTINGS
from trainables import stored_json

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
    declared: list[str] | None = None
    """Names of all arms of the space, of which ``arms`` are some, by which arms have their colours;
    None: ``arms`` are all."""
    against: str | None = None
    """Arm with which each other arm is compared; None: all pairs are compared."""
    budget: Budget | None = None
    """Budget of the study; None: it was not noted."""
    search: str = search_methods.OLDEST[0]
    """Searcher of the study."""
    stop: str = search_methods.OLDEST[1]
    """Rule of early stopping of the study."""
    allocate: str = ""
    """Division of the trials among arms; empty in studies whose settings say it."""
    times_if_diverged: int = 1
    """Multiple of the seeds with which an unsteady arm is confirmed
    (``study.search.unsteady_arms``); 1 in studies that began before there were any."""
    times_if_collapsed: int = 1
    """Multiple of the seeds of an arm of which a search trial collapsed; 1 in studies that began
    before collapsed trials counted."""
    base: dict[str, str]
    """What the study's numbers depend on besides its settings."""
    command: str
    """Command that began the study, without secrets."""
    begun: str
    """Local time at which the study began."""

    @property
    def all_arms(self) -> list[str]:
        """Names of all arms of the space, by which arms have their colours."""
        return [*self.arms] if self.declared is None else self.declared


def begun_study(folder: Path) -> BegunStudy:
    """Content of ``study.json`` in a study's folder. Settings that are younger than the study have
    their defaults, with which it ran.

    Raises:
        BadInput: the file is damaged, or a newer version or another program wrote it.
    """
    return stored_json.read(BegunStudy, folder / SETTINGS, versions=[VERSION])


def parse_begun(content: bytes, source: str) -> BegunStudy:
    """Parse the content of a ``study.json`` that lies elsewhere than in a folder.

    Raises:
        BadInput: as ``begun_study`` does.
    """
    return stored_json.read_content(BegunStudy, content, source, versions=[VERSION])


def arms_plain(space: Space) -> dict[str, Any]:
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


def space_as_begun(begun: BegunStudy, now: Space) -> Space | None:
    """The space with the arms with which a study began; ``now`` is the project's space of that
    name. None if the arms cannot be read."""
    try:
        arms = {name: _arm(plain) for name, plain in begun.arms.items()}
        for arm in arms.values():
            spaces.check(arm)
        return replace(now, arms=arms, against=begun.against, training=None)
    except (AttributeError, LookupError, RecursionError, SyntaxError, TypeError, ValueError):
        return None


def _arm(plain: Mapping[str, Any]) -> Arm:
    """The arm of which ``arms_plain`` made these plain values.

    Raises:
        AttributeError, LookupError, SyntaxError, TypeError, ValueError: it made no such values.
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
