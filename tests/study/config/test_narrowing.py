"""``--arm`` and ``--set``: a space is narrowed, or what was asked is refused in a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search_spaces.declare import Arm, ByBand, Choice, LogUniform, Range, Space, Uniform, method
from study import launch, plan
from study.config import spaces
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.space_changes.narrowing import narrow, options_text
from study.config.study_json import check_resumable, open_study
from study.storage.study_folder import SETTINGS, StudyFolder
from trainables.errors import BadInput

LORA = method("lora", rank=Choice(2, 8), dropout=Uniform(0, 0.5))
BANDS = method("lora", rank=ByBand(first=2, middle=4, last=Choice(4, 8)))
SPACE = Space(
    question="?",
    arms={
        "layernorm": Arm(everywhere=method("layernorm"), lr=LogUniform(1e-4, 1e-1)),
        "lora": Arm(everywhere=LORA, lr=LogUniform(1e-5, 1e-2)),
        "slots": Arm(vision=method("full"), decoder=BANDS, lr=1e-3),
    },
)


def ranges(arm: str, *changes: str) -> dict[str, Range]:
    return spaces.ranges(narrow(SPACE, None, changes).arms[arm])


def test_nothing_asked_changes_nothing() -> None:
    assert narrow(SPACE, None, ()) == SPACE
    assert options_text(None, None) == ""


def test_some_arms_are_left_in_the_order_of_the_space() -> None:
    assert [*narrow(SPACE, "lora,layernorm", ()).arms] == ["layernorm", "lora"]
    assert (
        options_text("lora", ["lora.rank=4", "lr=0.1"])
        == "--arm lora --set lora.rank=4 --set lr=0.1"
    )


@pytest.mark.parametrize(
    ("arm", "change", "name", "expected"),
    [
        (
            "slots",
            "prompt={question}|Well.. briefly, {question}",
            "prompt",
            Choice("{question}", "Well.. briefly, {question}"),
        ),
        ("lora", "lora.rank=4,8,8", "lora.rank", Choice(4, 8)),
        ("lora", "lora.alpha_per_rank=1,2", "lora.alpha_per_rank", Choice(1.0, 2.0)),
        ("lora", "lora.targets=query+value,all", "lora.targets", Choice("query+value", "all")),
        ("lora", "lora.targets=value,query", "lora.targets", Choice("value", "query")),
        ("lora", "lora.layers=last:1,all", "lora.layers", Choice("last:1", "all")),
        ("lora", "lora.rank=4,2/4/8", "lora.rank", Choice(4, (2, 4, 8))),
        ("lora", "lora.rank_stabilized=true,False", "lora.rank_stabilized", Choice(True, False)),
        ("lora", "lora.dropout=0..0.1", "lora.dropout", Uniform(0, 0.1)),
        ("lora", "lr=0.001..0.01", "lr", LogUniform(1e-3, 1e-2)),
        ("lora", "warmup=0,0.05", "warmup", Choice(0.0, 0.05)),
        ("lora", "max_grad_norm=none,0.5", "max_grad_norm", Choice(None, 0.5)),
        ("lora", "label_smoothing=None,0.1", "label_smoothing", Choice(None, 0.1)),
        ("lora", "system=none|Briefly.", "system", Choice(None, "Briefly.")),
        ("layernorm", "batch_size=8,16", "batch_size", Choice(8, 16)),
        ("slots", "schedule=cosine,linear", "schedule", Choice("cosine", "linear")),
        ("lora", "weight_decay=0..0.1", "weight_decay", Uniform(0, 0.1)),
        ("slots", "lr=0.001..0.01", "lr", LogUniform(1e-3, 1e-2)),
        ("layernorm", "lora/lr=0.001..0.01", "lr", LogUniform(1e-4, 1e-1)),
        ("lora", "lora/lr=0.001,0.01", "lr", Choice(1e-3, 1e-2)),
        ("slots", "lora.rank=4,8", "decoder.lora.rank", Choice(4, 8)),
        ("slots", "decoder.lora.rank.last=2,8", "decoder.lora.rank.last", Choice(2, 8)),
        ("lora", "decoder.lora.rank=16", "lora.rank", Choice(2, 8)),
    ],
)
def test_a_setting_has_the_values_that_are_asked(
    arm: str, change: str, name: str, expected: Range
) -> None:
    assert ranges(arm, change)[name] == expected


def test_a_single_value_is_no_longer_searched() -> None:
    changes = ("lora.rank=4", "lora.alpha_per_rank=2", "lora.dropout=0", "lr=0.001")
    assert ranges("lora", *changes) == {}
    recipe, lr = spaces.draw(narrow(SPACE, None, changes).arms["lora"], ["decoder"], spaces.middle)
    assert (
        recipe["decoder"] | {"rank": 4, "alpha_per_rank": 2.0, "dropout": 0.0}
        == (recipe["decoder"])
    )
    assert lr == 1e-3


@pytest.mark.parametrize(
    ("arms", "change", "error"),
    [
        ("lorra", "", "unknown arm 'lorra'; did you mean 'lora'?"),
        (
            None,
            "lora.rnak=4",
            "--set lora.rnak=4: unknown setting 'lora.rnak'; did you mean",
        ),
        ("layernorm", "lora.rank=4", "unknown setting 'lora.rank'"),
        (None, "lorra/lr=1", "--set lorra/lr=1: unknown arm 'lorra'; did you mean 'lora'?"),
        (None, "lora.rank", "--set lora.rank: must be like lora.rank=4,8 or lr=0.001..0.01"),
        (None, "lora.rank=", "--set lora.rank=: must be like lora.rank=4,8"),
        (None, "lora.rank=4,", "--set lora.rank=4,: must be like"),
        (None, "lora.rank=0", "--set lora.rank=0: lora rank must be at least 1 but got 0"),
        (None, "lora.rank=4,x", "must be a whole number, not 'x'"),
        (
            None,
            "lora.rank=4..8",
            "a range LOW..HIGH is for settings that are decimal numbers",
        ),
        (None, "lora.rank=4/8", "lora rank must be one value, or three for the first, middle"),
        (None, "lora.rank_stabilized=1", "must be true or false, not '1'"),
        (None, "lora.targets=al", "lora targets: unknown role 'al'; did you mean 'all'"),
        (None, "lora.layers=last", "layers must be 'all', or 'first:N' or 'last:N'"),
        (None, "lr=0.1..0.01", "LogUniform needs 0 < low < high but got 0.1 and 0.01"),
        (None, "lr=0", "the lr of an Arm must be positive but got 0"),
        (None, "lr=x", "--set lr=x: must be a number, not 'x'"),
        (None, "epochs=3", "--set epochs=3: it is no setting of an arm; give --epochs"),
        (None, "warmup=none", "--set warmup=none: must be a number, not 'none'"),
        (None, "prompt={question}|Well?", "prompt 'Well?' must have {question} once"),
        (None, "system= ", "system is blank"),
    ],
)
def test_what_is_not_there_or_cannot_be_is_refused_in_a_line(
    arms: str | None, change: str, error: str
) -> None:
    with pytest.raises(BadInput) as refused:
        narrow(SPACE, arms, (change,) if change else ())
    assert error in str(refused.value) and "\n" not in str(refused.value)


def test_a_setting_that_is_given_twice_is_refused() -> None:
    with pytest.raises(BadInput, match=r"--set lora\.rank is given 2 times; give it once"):
        narrow(SPACE, None, ("lora.rank=4", "lora.rank=8"))


def test_a_study_records_how_it_was_narrowed_only_where_it_was(tmp_path: Path) -> None:
    plain, narrowed = (
        StudyDefinition.parse(Settings(space="smoke", **given))
        for given in ({}, {"arm": "lora", "set": ["lora.rank=4"]})
    )
    assert [*narrowed.space.arms] == ["lora"]
    for name, definition in {"plain": plain, "narrowed": narrowed}.items():
        folder = StudyFolder(storage=tmp_path, name=name)
        open_study(folder, definition, run=definition.space.arms, base={})
        begun = json.loads((folder.path / SETTINGS).read_text("utf-8"))["settings"]
        assert {name: begun.get(name) for name in ("arm", "set")} == {
            "arm": definition.settings.arm,
            "set": definition.settings.set,
        }
        assert ("set" in begun) == (definition is narrowed) == ("arm" in begun)
        check_resumable(folder, definition)
    with pytest.raises(BadInput, match="study 'narrowed' was begun with arm='lora', not None"):
        check_resumable(StudyFolder(storage=tmp_path, name="narrowed"), plain)


def test_a_study_that_was_narrowed_goes_on_as_it_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = StudyDefinition.parse(Settings(space="smoke", set=["lora.rank=4"]))
    folder = StudyFolder(storage=tmp_path, name="one")
    open_study(folder, definition, run=definition.space.arms, base={})
    again = ("--resume", "one", "--storage", str(tmp_path), "--set", "lora.rank=8")
    assert launch.main([*again]) == 2
    said = "study 'one' was begun with set=['lora.rank=4'], not ['lora.rank=8']"
    assert said in capsys.readouterr().err


def test_the_plan_counts_and_shows_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--space", "smoke", "--arm", "lora", "--set", "lora.rank=4,16", "--set", "lr=0.01")
    assert plan.main([*asked]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "narrowed by --arm lora --set lora.rank=4,16 --set lr=0.01" in shown
    assert "lora.rank {4, 16}" in shown and "layernorm" not in shown
