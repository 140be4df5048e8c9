"""Two arms have a letter in common exactly if they are not told apart."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from study.statistics.letters import letters


@pytest.mark.parametrize(
    ("told_apart", "found"),
    [
        ([], {"x": "a", "y": "a", "z": "a"}),
        ([("x", "z")], {"x": "a", "y": "ab", "z": "b"}),
        ([("x", "z"), ("x", "y")], {"x": "a", "y": "b", "z": "b"}),
        ([("x", "z"), ("x", "y"), ("z", "y")], {"x": "a", "y": "b", "z": "c"}),
        # Not in the order of the means, as where an arm in between has a wide interval.
        ([("x", "y")], {"x": "a", "y": "b", "z": "ab"}),
    ],
)
def test_small_cases(told_apart: list[tuple[str, str]], found: dict[str, str]) -> None:
    assert letters(["x", "y", "z"], told_apart) == found


@pytest.mark.parametrize("arms", [2, 5, 12, 23])
def test_a_common_letter_means_not_told_apart(arms: int) -> None:
    chance = random.Random(arms)
    names = [f"arm{number}" for number in range(arms)]
    for share in (0.1, 0.5, 0.9):
        pairs = list(combinations(names, 2))
        told = [pair for pair in pairs if chance.random() < share]
        found = letters(names, told)
        for first, second in pairs:
            common = _groups(found[first]) & _groups(found[second])
            assert (not common) == ((first, second) in told)
        assert found[names[0]].startswith("a")


def _groups(text: str) -> set[str]:
    """The letters of an arm, each with its number."""
    groups: list[str] = []
    for character in text:
        if character.isdigit():
            groups[-1] += character
        else:
            groups.append(character)
    return set(groups)
