"""``--objective``: what to look for is read, and what cannot be is refused."""

import pytest

from study.config import goals
from trainables.errors import BadInput


@pytest.mark.parametrize(
    ("text", "costs"),
    [
        ("score", ()),
        ("score,memory", ("peak_memory_gib",)),
        ("parameters, score", ("trained_parameters",)),
    ],
)
def test_what_it_says(text: str, costs: tuple[str, ...]) -> None:
    assert goals.parse_objectives(text) == costs


@pytest.mark.parametrize(
    ("text", "said"),
    [("memory", "must be score, or"), ("score,memry", "memory"), ("score,score", "must be")],
)
def test_what_cannot_be_looked_for(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        goals.parse_objectives(text)
