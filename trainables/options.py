"""Options of a command, made from the fields of dataclasses: each is named once.

A field that is declared with ``option`` has its name, type, default, metavar and help in one place,
and ``same_option`` gives another command the same option. ``parse`` reads a dataclass from the
command line. Where a command has several, ``add_options`` adds their fields to a parser, and
``given_options`` reads those that the user gave.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from trainables.errors import BadInput, did_you_mean, is_whole

T = TypeVar("T")
LARGEST = 10**12
"""Largest number that an option may have: more of anything is a slip of the finger."""


class Parser(argparse.ArgumentParser):
    """Parser of a command's options. An option must be written out, and what is wrong is
    ``BadInput``: one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            BadInput: always, with ``message`` in the words of the other refusals.
        """
        name, _, rest = message.partition(": ")
        if name == "unrecognized arguments":
            first, *_ = rest.split()
            option = first.partition("=")[0]
            if not option.startswith("-"):
                raise BadInput(f"{rest} is given, but belongs to no option; see --help")
            names = [name.lstrip("-") for name in self._option_string_actions]
            close = did_you_mean(option.lstrip("-"), names).replace("mean '", "mean '--")
            raise BadInput(f"there is no option {option} ({rest}); {close}see --help")
        raise BadInput(re.sub(r"^argument (\S+): ", r"\1 ", message))


def _whole(text: str) -> int:
    """The whole number that a text is."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    return int(_within(number, text))


def _number(text: str) -> float:
    """The finite number that a text is."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return _within(number, text)


def _text(text: str) -> str:
    """A text that says something."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give a value, or leave it away")
    if not is_whole(text):  # Python's way to keep bytes that are no UTF-8
        raise argparse.ArgumentTypeError(f"is no text in UTF-8: {text!r}")
    if re.search("[\0-\x08\x0b-\x1f\x7f-\x9f]", text):
        raise argparse.ArgumentTypeError(f"has a control character: {text!r}")
    return text


def _path(text: str) -> Path:
    """The path that a text is."""
    return Path(_text(text))


def _within(number: float, text: str) -> float:
    if abs(number) > LARGEST:
        raise argparse.ArgumentTypeError(f"must be at most {LARGEST:g}, got {text}")
    return number


TYPES = {"int": _whole, "float": _number, "Path": _path}
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
    """Title of the group of options in ``--help``; None, or one that the command does not have: the
    parser's own."""
    help: str
    metavar: str | None
    default: str | None
    """Default in words; None: the field's default as it is."""
    flag: str | None
    """The option as the user writes it; None: the field's name."""
    required: bool
    """Whether the user must give it."""
    positional: bool
    """Whether it is given by its place; one that has a default may be left away."""
    choices: Sequence[str] | None
    """The values that it may have; None: any of its type."""
    several: bool
    """Whether it takes all values that follow it, and not one only."""


def option(
    value: Any = MISSING,
    *,
    help: str = "",  # noqa: A002  # as argparse calls it
    group: str | None = None,
    metavar: str | None = None,
    default: str | None = None,
    flag: str | None = None,
    required: bool = False,
    positional: bool = False,
    choices: Sequence[str] | None = None,
    several: bool = False,
) -> Any:
    """Declare a field of a dataclass that is an option too. ``value`` is the field's default; see
    ``Option`` for the rest. The option of a ``list[str]`` may be given several times."""
    described = Option(
        group=group,
        help=help,
        metavar=metavar,
        default=default,
        flag=flag,
        required=required,
        positional=positional,
        choices=choices,
        several=several,
    )
    return field(default=value, metadata={KEY: described})


def same_option(dataclass_: type, name: str, **changes: Any) -> Any:
    """Declare a field that is the same option as a field of another dataclass, with the same
    default. ``changes`` are fields of ``Option`` that differ."""
    found = next(field_ for field_ in fields(dataclass_) if field_.name == name)
    return field(default=found.default, metadata={KEY: replace(found.metadata[KEY], **changes)})


def parse(
    parser: Parser,
    arguments: list[str] | None,
    dataclass_: type[T],
    *,
    groups: Iterable[str] = (),
) -> T:
    """Read the options of a dataclass from the arguments of a command (None: those of this process)
    by a parser that has no options yet."""
    add_options(parser, dataclass_, groups=groups)
    return dataclass_(**given_options(parser.parse_args(arguments), dataclass_))


def add_options(
    parser: argparse.ArgumentParser, *dataclasses: type, groups: Iterable[str] = ()
) -> None:
    """Add the options of dataclasses to a parser, in groups with these titles. An option that is
    not given is absent from the parsed arguments, so that defaults stand in one place."""
    shown = {title: parser.add_argument_group(title) for title in groups}
    for field_, described in _options(dataclasses):
        names = [described.flag or f"--{field_.name.replace('_', '-')}"]
        settings = _reading(field_, described)
        if described.positional:
            names = [field_.name]
        else:
            settings |= {"dest": field_.name, "required": described.required}
        shown.get(described.group or "", parser).add_argument(
            *names,
            help=_help(field_, described).replace("%", "%%"),
            **{"default": argparse.SUPPRESS, **settings},
        )


def given_options(parsed: argparse.Namespace, dataclass_: type) -> dict[str, Any]:
    """Name -> value of those options of a dataclass that the user gave."""
    names = (field_.name for field_, _ in _options([dataclass_]))
    return {name: getattr(parsed, name) for name in names if hasattr(parsed, name)}


def _options(dataclasses: Iterable[type]) -> list[tuple[Field[Any], Option]]:
    every = [field_ for each in dataclasses for field_ in fields(each)]
    return [(field_, field_.metadata[KEY]) for field_ in every if KEY in field_.metadata]


def _reading(field_: Field[Any], described: Option) -> dict[str, Any]:
    """Settings of ``add_argument`` that say how the value of an option is read."""
    kind = _kind(field_)
    if kind == "bool":
        return {"action": "store_true"}
    found: dict[str, Any] = {
        "type": TYPES.get(kind, _text),
        "metavar": described.metavar or METAVARS.get(kind),
        "choices": described.choices,
    }
    if kind == "list[str]":
        found |= {"action": "extend", "nargs": "+"} if described.several else {"action": "append"}
    if described.positional and field_.default is not MISSING:
        found |= {"nargs": "?", "default": field_.default}  # argparse cannot leave it out
    return found


def _kind(field_: Field[Any]) -> str:
    """Annotation of a field, without ``None``."""
    kind = field_.type
    return (kind.__name__ if isinstance(kind, type) else str(kind)).removesuffix(" | None")


def _help(field_: Field[Any], described: Option) -> str:
    """Help of an option, with its default in brackets if it has one."""
    default, value = described.default, field_.default
    if default is None and isinstance(value, str | int | float) and value is not False:
        default = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{described.help} [{default}]".lstrip() if default else described.help
