"""Search spaces: what is refused before anything runs, and what to do instead."""

from pathlib import Path

import pytest

from study.config import spaces
from trainables.errors import BadInput

SPACE = """from search_spaces.declare import Arm, Choice, LogUniform, Space, method
LR = LogUniform(1e-4, 1e-1)
SPACE = Space(question="?", arms={"a": Arm(everywhere=method("lora", %s), lr=LR)})
"""
NAMED = SPACE.replace('"a": Arm', "%s: Arm") % ("%s", "rank=2")


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


@pytest.mark.parametrize(
    "name", ["../../x", "..", "", "/x", "a/b", "a\\b", ".x", "-x", "a\nb", "a\0", "x" * 61, 7]
)
def test_an_arm_whose_name_could_be_a_path_is_refused(name: object, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(NAMED % repr(name))
    with pytest.raises(BadInput, match="line 3: ValueError: the name of an arm must") as refused:
        spaces.load(str(file))
    assert str(refused.value).endswith(f"but got {name!r}") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arm", "budget", "said"),
    [
        ('method("lora")', "", r"arm 'a' of a Space must be Arm\(\.\.\.\) but got MethodRanges"),
        ("ARM", "budget=3", r"the budget of a Space must be Budget\(\.\.\.\) but got 3"),
        ("ARM", "budget=Budget(trials=2.5)", "trials must be a whole number but got 2.5"),
        ("ARM", "budget=Budget(rungs='1')", "rungs must be a whole number but got '1'"),
        ("ARM", "budget=Budget(rungs=-1)", "rungs must be at least 0 but got -1"),
        (
            'Arm(everywhere=method("lora"), lr=1e999)',
            "",
            "must be positive but got inf",
        ),
    ],
)
def test_what_is_no_part_of_a_space_is_refused(
    arm: str, budget: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from search_spaces.declare import Arm, Budget, Space, method\n"
        'ARM = Arm(everywhere=method("lora"), lr=1e-3)\n'
        f'SPACE = Space(question="?", arms={{"a": {arm}}}, {budget})'
    )
    with pytest.raises(BadInput, match=rf"line 3: ValueError: .*{said}"):
        spaces.load(str(file))


@pytest.mark.parametrize("name", ["lora_plus", "LoRA+ (r=8)", "8 bit", "ein \u00e4rmel", "x" * 60])
def test_any_other_name_of_an_arm_will_do(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(NAMED % repr(name))
    assert list(spaces.load(str(file)).arms) == [name]
