"""Values that mean the same are one trial; what a study has begun with stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces.declare import Arm, ByBand, Choice, LogUniform, Space, Uniform, method, training
from study.config import spaces
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.space_changes.narrowing import narrow
from study.config.space_changes.same_values import distinct
from study.config.study_json import begun_study, check_resumable, open_study
from study.storage.study_folder import StudyFolder

STUDY = {"label_smoothing": 0.1, "prompt": "Well, {question}", "system": ""}
ALL = ("query", "key", "value", "qkv", "attention_output", "ffn_in", "ffn_out", "projection")


def of(arm: Arm, *changes: str) -> dict[str, Any]:
    declared = Space(question="?", arms={"a": arm})
    narrowed = narrow(declared, None, changes)
    return spaces.settings(distinct(narrowed, declared, STUDY).arms["a"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"alpha_per_rank": Choice(2, 2.0, 4)}, Choice(2, 4)),
        ({"targets": Choice("all", ALL[::-1], "attention+ffn,projection")}, Choice("all")),
        (
            {"targets": Choice("query,value", ("query", "value"), ("value", "qkv", "query"))},
            Choice("query,value", ("query", "value")),
        ),
        ({"rank": Choice(8, (8, 8, 8), (8, 8, 4))}, Choice(8, (8, 8, 4))),
        ({"rank_stabilized": Choice(True, False)}, Choice(True, False)),
        ({"lr_scale": Choice(1, 1.0, 0.5)}, Choice(1, 0.5)),
        ({"layers": Choice("all", "last:2")}, Choice("all", "last:2")),
        ({"dropout": Uniform(0, 0.5)}, Uniform(0, 0.5)),
        (
            {"rank": ByBand(first=2, middle=4, last=Choice(4, 8, 8))},
            ByBand(first=2, middle=4, last=Choice(4, 8)),
        ),
    ],
)
def test_of_values_that_mean_the_same_to_a_method_the_first_is_left(
    given: dict[str, Any], expected: Any
) -> None:
    arm = Arm(everywhere=method("lora", **given), lr=1e-3)
    declared = Space(question="?", arms={"a": arm})
    settings = distinct(declared, declared, STUDY).arms["a"].slots["everywhere"].settings
    assert repr([*settings.values()]) == repr([expected])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("label_smoothing", Choice(None, 0.1, 0), Choice(None, 0)),
        ("max_grad_norm", Choice(0.0, None, 1), Choice(0.0, 1)),
        (
            "prompt",
            Choice("Well, {question}", None, "{question}"),
            Choice("Well, {question}", "{question}"),
        ),
        ("system", Choice("", None), Choice("")),
        ("batch_size", Choice(8, 16, 8), Choice(8, 16)),
        ("weight_decay", LogUniform(1e-3, 1e-1), LogUniform(1e-3, 1e-1)),
    ],
)
def test_of_values_that_mean_the_same_to_training_the_first_is_left(
    name: str, value: Any, expected: Any
) -> None:
    arm = Arm(everywhere=method("lora"), lr=1e-3, training=training(**{name: value}))
    assert repr(of(arm)[name]) == repr(expected)


def test_the_command_line_names_values_as_the_file_does() -> None:
    lora = method("lora", alpha_per_rank=Choice(1, 2), targets=Choice("all", "ffn"))
    arm = Arm(everywhere=lora, lr=Choice(1, 0.1), training=training(weight_decay=Choice(0, 1)))
    changes = ("lora.alpha_per_rank=2.0,3", "lora.targets=ffn+projection+attention", "lr=1")
    found = of(arm, *changes, "weight_decay=0", "max_grad_norm=0")
    assert repr(found) == repr(
        {
            "lora.alpha_per_rank": Choice(2, 3.0),
            "lora.targets": "all",
            "lr": 1,
            "weight_decay": 0,
            "max_grad_norm": 0.0,
        }
    )


def test_a_study_that_began_with_both_goes_on_with_both(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from search_spaces.declare import *\n"
        "LORA = method('lora', alpha_per_rank=Choice(2, 2.0))\n"
        "SPACE = Space(question='?', arms={'a': Arm(everywhere=LORA, lr=1e-3)})\n"
    )
    settings = Settings(space=str(file))
    new = StudyDefinition.parse(settings)
    assert [*map(spaces.points, new.space.arms.values())] == [1]
    older = replace(new, space=spaces.load(str(file)))
    for name, began, values in (("older", older, (2, 2.0)), ("new", new, (2,))):
        folder = StudyFolder(storage=tmp_path, name=name)
        open_study(folder, began, run=["a"], base={})
        goes_on = StudyDefinition.parse(settings, begun_study(folder.path))
        check_resumable(folder, goes_on)
        assert spaces.ranges(goes_on.space.arms["a"]) == {"lora.alpha_per_rank": Choice(*values)}
