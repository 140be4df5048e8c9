"""``--under``: limits are read with their units."""

import pytest

from study.config.goals import Limit, parse_limits
from trainables.errors import BadInput


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (None, ()),
        ("memory<8GiB", (Limit(cost="peak_memory_gib", below=8),)),
        ("memory < 512MiB", (Limit(cost="peak_memory_gib", below=0.5),)),
        (
            "parameters<1.5M,seconds<2h",
            (Limit(cost="trained_parameters", below=1.5e6), Limit(cost="seconds", below=7200)),
        ),
        ("percent<0.5%", (Limit(cost="trained_percent", below=0.5),)),
    ],
)
def test_limits_are_read_with_their_units(text: str | None, limits: tuple[Limit, ...]) -> None:
    assert parse_limits(text) == limits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory=8", "must be like memory<8GiB"),
        ("memory<8", "the unit of memory must be one of: GiB, MiB"),
        ("memry<8GiB", "did you mean 'memory'?"),
        ("seconds<1.2.3", "'1.2.3' is no number"),
        ("memory<8GiB,", "must be like memory<8GiB"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("?", r"\?")):
        parse_limits(text)


def test_what_is_unknown_keeps_no_limit() -> None:
    assert Limit(cost="seconds", below=1.0).holds({"seconds": 0.5})
    assert not Limit(cost="seconds", below=1.0).holds({"seconds": 1.0})
    assert not Limit(cost="seconds", below=1.0).holds({"peak_memory_gib": 0.5})
