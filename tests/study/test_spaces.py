"""Search spaces: what is refused before anything runs, and what to do instead."""

from pathlib import Path

import pytest

from study import spaces
from trainables.errors import BadInput

SPACE = """from search_spaces.declare import Arm, Choice, LogUniform, Space, method
LR = LogUniform(1e-4, 1e-1)
SPACE = Space(question="?", arms={"a": Arm(everywhere=method("lora", %s), lr=LR)})
"""


@pytest.mark.parametrize("value", ['("query", "value")', '["query"]', "{}", "LogUniform(1, 2)"])
def test_a_choice_among_what_the_journal_cannot_keep_is_refused(value: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SPACE % f'targets=Choice({value}, ("query",))')
    said = "line 3: ValueError: Choice takes numbers, strings, bools and None but got .*; give"
    with pytest.raises(BadInput, match=said):
        spaces.load(str(file))


def test_what_a_choice_cannot_hold_may_be_the_setting_of_an_arm(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SPACE % 'targets=("query", "value"), rank=Choice(2, 4)')
    (arm,) = spaces.load(str(file)).arms.values()
    assert arm.slots["everywhere"].settings["targets"] == ("query", "value")
