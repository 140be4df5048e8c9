"""Search spaces: what is refused before anything runs, and what to do instead."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from search_spaces.declare import Arm, Choice, Space
from study.config import spaces
from trainables.data.common.wording import Asking
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
        ("Arm(everywhere=method(3), lr=1)", "", "method needs the name of a method but got 3"),
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


TRAINED = """from search_spaces.declare import *
LR = LogUniform(1e-4, 1e-1)
SPACE = Space(
    question="?",
    arms={
        "a": Arm(everywhere=method("lora"), lr=LR, training=training(%s)),
        "b": Arm(everywhere=method("lora"), lr=1e-3),
    },
    training=training(schedule=Choice("cosine", "linear"), warmup=0.1),
)
"""


def trained(settings: str, tmp_path: Path) -> Space:
    (tmp_path / "mine.py").write_text(TRAINED % settings)
    return spaces.load(str(tmp_path / "mine.py"))


def test_training_settings_are_of_an_arm_or_of_all(tmp_path: Path) -> None:
    space = trained(
        "weight_decay=LogUniform(1e-3, 1e-1), warmup=0, batch_size=Choice(8, 4)", tmp_path
    )
    one, other = space.arms.values()
    assert [*spaces.ranges(one)] == ["lr", "schedule", "weight_decay", "batch_size"]
    assert [*spaces.ranges(other)] == ["schedule"] and spaces.points(other) == 2
    assert spaces.draw_training(other, spaces.middle) == {"schedule": "linear", "warmup": 0.1}
    drawn = {
        "schedule": "linear",
        "warmup": 0,
        "weight_decay": pytest.approx(0.01),
        "batch_size": 4,
    }
    assert spaces.draw_training(one, spaces.middle) == drawn
    assert spaces.batch_sizes(one, 32) == (4, 8) and spaces.batch_sizes(other, 32) == (32,)
    again = replace(space, arms=dict(space.arms))
    assert [arm.training for arm in again.arms.values()] == [one.training, other.training]


def test_a_space_asks_in_all_ways_that_its_arms_name(tmp_path: Path) -> None:
    space = trained("prompt=Choice('{question}', 'Well, {question}')", tmp_path)
    told = Asking(prompt="Look. {question}", system="You read X-rays.")
    assert spaces.askings(space, told) == [
        Asking(prompt="{question}", system="You read X-rays."),
        Asking(prompt="Well, {question}", system="You read X-rays."),
        told,
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("weight_decy=0.1", "arm 'a': unknown training setting 'weight_decy'; did you mean"),
        ("warmup=Uniform(0, 1.5)", r"warmup must be in \[0, 1\) but got 1.5"),
        ("schedule=Choice('cosine', 'exponential')", "unknown schedule 'exponential'"),
        ("batch_size=Choice(8, 4.5)", "batch_size must be a positive whole number.* but got 4.5"),
        ("prompt=Choice('{question}', '{text}')", r"arm 'a': prompt .* has \{text\}; the only"),
        ("prompt=Uniform(0, 1)", "arm 'a': prompt must be a text but got 0"),
        ("system=3", "arm 'a': system must be a text but got 3"),
        ("batch_size=LogUniform(8, 64)", "batch_size must be .* a Choice of such, but got LogUni"),
    ],
)
def test_training_settings_that_make_no_sense_are_refused(
    settings: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        trained(settings, tmp_path)
    assert "\n" not in str(refused.value)


def test_a_setting_that_is_no_training_setting_is_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there are: batch_size, beta1, beta2, label_smoothing"):
        trained("momentum=0.9", tmp_path)


def test_training_takes_training_only(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text((TRAINED % "").replace("training=training()", "training={}"))
    with pytest.raises(BadInput, match=r"training of an Arm must be training\(...\) but got {}"):
        spaces.load(str(tmp_path / "mine.py"))
