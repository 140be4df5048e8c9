"""What every shipped search space keeps: a file in ``search_spaces`` joins by being there."""

from __future__ import annotations

import pytest

from study.config import spaces
from study.config.spaces import SPACES
from tests.trainables.conftest import OWN, SMALL
from trainables.errors import BadInput


@pytest.mark.parametrize("name", SPACES.names())
def test_every_method_setting_and_value_of_a_space_exists(name: str) -> None:
    try:
        space = spaces.load(name)
    except BadInput as error:
        pytest.fail(f"search_spaces/{name}.py: {error}", pytrace=False)
    assert space.question.strip(), f"search_spaces/{name}.py asks no question"


@pytest.mark.parametrize("name", SPACES.names())
def test_some_model_family_has_all_slots_of_an_arm(name: str) -> None:
    slots = {family: list(SMALL[family]().slots) for family in OWN}
    for arm, declared in spaces.load(name).arms.items():
        named = set(declared.slots) - {"everywhere"}
        there = "; ".join(f"{family} has {', '.join(has)}" for family, has in slots.items())
        assert any(named <= set(has) for has in slots.values()), (
            f"arm {arm!r} of search_spaces/{name}.py names the slots {', '.join(sorted(named))}, "
            f"which no model family has: {there}"
        )
