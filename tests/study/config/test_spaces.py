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


def test_a_setting_by_band_is_drawn_jointly_and_named_by_its_thirds(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    bands = SPACE.replace("import Arm", "import Arm, ByBand")
    file.write_text(bands % "rank=ByBand(first=Choice(2, 4), middle=4, last=Choice(4, 8, 16))")
    arm = spaces.load(str(file)).arms["a"]
    assert [*spaces.ranges(arm)] == ["lora.rank.first", "lora.rank.last", "lr"]
    assert spaces.points(Arm(lr=1e-3, **arm.slots)) == 6
    recipe, _ = spaces.draw(arm, ["decoder"], lambda name, _: 2 if name.endswith("first") else 16)
    assert recipe["decoder"]["rank"] == (2, 4, 16)
    assert str(spaces.typical(arm, ["decoder"])) == "lora(rank=(4, 4, 8))"
    file.write_text(bands % "rank=ByBand(first=4, middle=4, last=Choice(4, 0))")
    with pytest.raises(BadInput, match="arm 'a': lora rank must be at least 1 but got 0"):
        spaces.load(str(file))
    file.write_text(bands % "dropout=ByBand(first=0.1, middle=0.1, last=0.2)")
    with pytest.raises(BadInput, match="arm 'a': lora dropout must be of type float"):
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


@pytest.mark.parametrize("name", ["lora_plus", "LoRA+ (r=8)", "8 bit", "ein \u00e4rmel", "x" * 60])
def test_any_other_name_of_an_arm_will_do(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(NAMED % repr(name))
    assert list(spaces.load(str(file)).arms) == [name]
