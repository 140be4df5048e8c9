"""Letters that say which of many arms are told apart, as statisticians print them beside means.

Two arms have a letter in common exactly if they are not told apart (Piepho 2004, "An Algorithm for
a Letter-Based Representation of All-Pairwise Comparisons", doi 10.1198/1061860043515). The letters
follow from the findings about pairs and add nothing to them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import count, islice
from string import ascii_lowercase


def letters(ranked: Sequence[str], told_apart: Collection[tuple[str, str]]) -> dict[str, str]:
    """Letters of each arm.

    Args:
        ranked: names of the arms, the best first: its letters are the first ones.
        told_apart: pairs of arms that are told apart, each in either order.

    Returns:
        Name of an arm -> its letters, in alphabetical order. Beyond 26 groups a letter has a number
        (``a2``).
    """
    groups: list[frozenset[str]] = [frozenset(ranked)]
    for first, second in told_apart:
        split: list[frozenset[str]] = []
        for group in groups:
            if first in group and second in group:
                split += [group - {first}, group - {second}]
            else:
                split.append(group)
        # A group that lies within another says nothing that the other does not say.
        groups = [
            group
            for i, group in enumerate(split)
            if not any(group < other or (group == other and j < i) for j, other in enumerate(split))
        ]
    groups.sort(key=lambda group: sorted(map(ranked.index, group)))
    named = dict(zip(islice(_names(), len(groups)), groups, strict=True))
    return {arm: "".join(name for name, group in named.items() if arm in group) for arm in ranked}


def _names() -> Iterator[str]:
    for again in count(1):
        yield from (letter if again == 1 else f"{letter}{again}" for letter in ascii_lowercase)
