"""Colours of arms, which are the same in MLflow, in the report and on the terminal."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#e69f00", "#56b4e9", "#7a7a7a", "#000000"),
    *("#8778f0", "#9600ff", "#ff87ff", "#a50069"),
    *("#ff00ff", "#d200b4", "#3c5a00", "#00d200"),
    *("#ff0069", "#ff9696", "#78c378", "#963c0f"),
    *("#001eff", "#005a69", "#693ca5", "#787800"),
)
"""Colour of each number, again from the first where there are more arms. The first eight are Okabe
and Ito's, which the colour-blind can tell apart. The others are as far from them and from one
another as can be, and are seen on black and on white. Those that the colour-blind may confuse have
different shapes in the report. Its style sheet has the colours too, and lighter ones for dark
pages."""
BLACK = "#000000"
CHROMATIC = 6
"""Number of colours that are neither grey nor black, with which small studies do."""
SEED = 12763
"""Seed of the numbers that names give: with it the methods that are compared most have different
ones."""
UNTUNED = "#b8b8b8"
"""Colour of the base model as it is."""


def arm_numbers(arms: Iterable[str]) -> dict[str, int]:
    """Number of each arm, which decides its colour and its shape.

    It follows from the arm's name, so that it is the same in all studies of a search space. Of
    arms whose names give the same number, all but one have the lowest numbers that are free. So
    ``arms`` are all arms of the space (``Space.declared``), also where a study runs some of them.
    """
    names = [*arms]
    numbers: dict[str, int] = {}
    for name in sorted(names):
        number = zlib.crc32(f"{name}{SEED}".encode()) % CHROMATIC
        if number not in numbers.values():
            numbers[name] = number
    free = (n for n in itertools.count() if n not in numbers.values())
    for name in sorted(names):
        if name not in numbers:
            numbers[name] = next(free)
    return {name: numbers[name] for name in names}


def arm_colours(arms: Iterable[str]) -> dict[str, str]:
    """Colour of each arm, as ``#rrggbb``; ``arms`` are those of ``arm_numbers``."""
    return {name: COLOURS[n % len(COLOURS)] for name, n in arm_numbers(arms).items()}


def terminal_styles(arms: Iterable[str]) -> dict[str, str]:
    """Colour of each arm on a terminal, whose own colour of text stands for black: its background
    may be black. ``arms`` are those of ``arm_numbers``."""
    return {name: terminal_style(number) for name, number in arm_numbers(arms).items()}


def terminal_style(number: int) -> str:
    """Colour of an arm's number on a terminal, as in ``terminal_styles``."""
    colour = COLOURS[number % len(COLOURS)]
    return "default" if colour == BLACK else colour
