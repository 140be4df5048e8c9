"""Options of a command, made from the fields of dataclasses: each is named once.

A field that is declared with ``option`` has its name, type, default, metavar and help in one place.
``add_options`` adds such fields to a parser, ``given_options`` reads those that the user gave.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

TYPES = {"int": int, "float": float, "Path": Path}
"""Type of a field, without ``None`` -> function that parses the option's text; options of other
types stay text."""
METAVARS = {"int": "N", "float": "X"}
"""Type of a field, without ``None`` -> metavar of its option in ``--help``, if it names none."""
KEY = "option"
"""Key under which a field's metadata holds its ``Option``."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """Description of a field as a command's option."""

    group: str | None
    """Title of the group of options in ``--help``; None: the parser's own."""
    help: str
    metavar: str | None
    default: str | None
    """Default in words; None: the field's default as it is."""
    flag: str | None
    """The option as the user writes it; None: the field's name."""
    required: bool
    """Whether the user must give it."""


def option(
    value: Any = MISSING,
    *,
    help: str,  # noqa: A002  # as argparse calls it
    group: str | None = None,
    metavar: str | None = None,
    default: str | None = None,
    flag: str | None = None,
    required: bool = False,
) -> Any:
    """Declare a field of a dataclass that is an option too. ``value`` is the field's default; see
    ``Option`` for the rest."""
    described = Option(
        group=group, help=help, metavar=metavar, default=default, flag=flag, required=required
    )
    return field(default=value, metadata={KEY: described})


def add_options(
    parser: argparse.ArgumentParser, *dataclasses: type, groups: Iterable[str] = ()
) -> None:
    """Add the options of dataclasses to a parser, in groups with these titles. An option that is
    not given is absent from the parsed arguments, so that defaults stand in one place."""
    shown = {None: parser} | {title: parser.add_argument_group(title) for title in groups}
    for field_, described in _options(dataclasses):
        kind = _kind(field_)
        reading: dict[str, Any] = {"action": "store_true"}
        if kind != "bool":
            metavar = described.metavar or METAVARS.get(kind)
            reading = {
                "type": TYPES.get(kind, str),
                "metavar": metavar,
                "required": described.required,
            }
        shown[described.group].add_argument(
            described.flag or f"--{field_.name.replace('_', '-')}",
            dest=field_.name,
            default=argparse.SUPPRESS,
            help=_help(field_, described).replace("%", "%%"),
            **reading,
        )


def given_options(parsed: argparse.Namespace, dataclass_: type) -> dict[str, Any]:
    """Name -> value of those options of a dataclass that the user gave."""
    names = (field_.name for field_, _ in _options([dataclass_]))
    return {name: getattr(parsed, name) for name in names if hasattr(parsed, name)}


def _options(dataclasses: Iterable[type]) -> list[tuple[Field[Any], Option]]:
    every = [field_ for each in dataclasses for field_ in fields(each)]
    return [(field_, field_.metadata[KEY]) for field_ in every if KEY in field_.metadata]


def _kind(field_: Field[Any]) -> str:
    """Annotation of a field, without ``None``."""
    kind = field_.type
    return (kind.__name__ if isinstance(kind, type) else str(kind)).removesuffix(" | None")


def _help(field_: Field[Any], described: Option) -> str:
    """Help of an option, with its default in brackets if it has one."""
    default, value = described.default, field_.default
    if default is None and isinstance(value, str | int | float) and value is not False:
        default = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{described.help} [{default}]" if default else described.help
