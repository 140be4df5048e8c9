"""Names of the independent searches of an arm. What draws trials takes each for an arm of its own.

With ``--searches 3`` the arm ``lora`` is searched as ``lora``, ``lora#2`` and ``lora#3``. They
share neither points nor rungs nor seeds, and each is confirmed. In the results they are one arm.
"""

from __future__ import annotations

MARK = "#"
"""What is between an arm's name and the number of its search. No arm of a study of several searches
has it in its name."""
SEEDS = 1_001
"""Difference between the seeds of two searches: more than a study has confirmations."""


def searched_as(arm: str, search: int) -> str:
    """Name under which an arm is searched for the ``search``-th time, counted from 0."""
    return arm if search == 0 else f"{arm}{MARK}{search + 1}"


def arm_of(name: str, searches: int) -> str:
    """The arm that is searched under this name, in a study of so many searches."""
    return name.partition(MARK)[0] if searches > 1 else name


def search_of(name: str, searches: int) -> int:
    """Which search of its arm has this name, counted from 0."""
    number = name.partition(MARK)[2] if searches > 1 else ""
    return int(number) - 1 if number else 0
