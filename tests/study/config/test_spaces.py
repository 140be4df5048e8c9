"""Search spaces: what is refused before anything runs, and what to do instead."""

from pathlib import Path

import optuna
import pytest

from search_spaces.declare import Arm, Choice
from study.config import spaces
from trainables.errors import BadInput

SPACE = """from search_spaces.declare import Arm, Choice, LogUniform, Space, method
LR = LogUniform(1e-4, 1e-1)
SPACE = Space(question="?", arms={"a": Arm(everywhere=method("lora", %s), lr=LR)})
"""
NAMED = SPACE.replace('"a": Arm', "%s: Arm") % ("%s", "rank=2")


@pytest.mark.parametrize("value", ['(("query",),)', '["query"]', "{}", "LogUniform(1, 2)"])
def test_a_choice_among_what_the_journal_cannot_keep_is_refused(value: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SPACE % f'targets=Choice({value}, ("query",))')
    said = "line 3: ValueError: Choice takes texts, numbers, bools, None and tuples .* got .*; give"
    with pytest.raises(BadInput, match=said):
        spaces.load(str(file))


def test_a_tuple_is_told_to_optuna_as_text_and_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SPACE % 'targets=Choice("all", ("query", "value"), ("ffn",))')
    arm = spaces.load(str(file)).arms["a"]
    targets = spaces.ranges(arm)["lora.targets"]
    assert spaces.points(Arm(lr=1e-3, **arm.slots)) == 3
    assert isinstance(targets, Choice)
    assert spaces.optuna_choices(targets) == ("all", '["query", "value"]', '["ffn"]')
    study = optuna.create_study()
    for value in targets.values:
        told = {"a/lora.targets": spaces.to_optuna(value), "a/lr": 1e-3}
        study.enqueue_trial(told)
        recipe, _ = spaces.draw(arm, ["decoder"], spaces.suggest(study.ask(), "a"))
        assert recipe["decoder"]["targets"] == value


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


@pytest.mark.parametrize("name", ["lora_plus", "LoRA+ (r=8)", "8 bit", "ein \u00e4rmel", "x" * 60])
def test_any_other_name_of_an_arm_will_do(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(NAMED % repr(name))
    assert list(spaces.load(str(file)).arms) == [name]
