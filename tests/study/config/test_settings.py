"""A study goes on as it began, or says in one line why it cannot."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path

import pytest

from search_spaces.declare import Arm, Budget, ByBand, Choice, LogUniform, Space, Uniform, method
from study import launch, report
from study.config import search_methods, spaces
from study.config.begun_study import arms_plain, begun_study
from study.config.definition import StudyDefinition
from study.config.settings import GROUPS, Settings
from study.config.study_json import check_resumable, free_name, identity, open_study, read
from study.search.arm_gains import LEAST
from study.storage.paths import check_study_name
from study.storage.study_folder import SETTINGS, StudyFolder
from trainables.engine.training_settings import TORCH_OF
from trainables.errors import BadInput
from trainables.options import add_options

ASKED = Settings(space="smoke")
DEFINED = StudyDefinition.parse(ASKED)
SPACE = DEFINED.space


def begin(storage: Path, *, run: Collection[str] = tuple(SPACE.arms), name: str = "one") -> Path:
    one = StudyFolder(storage=storage, name=name)
    return open_study(one, DEFINED, run=run, base={"precision": "bf16"})


def gone_on(storage: Path, asked: Settings = ASKED) -> StudyDefinition:
    """The definition with which the study goes on."""
    return StudyDefinition.parse(asked, begun_study(storage / "one"))


def test_it_keeps_its_precision_and_who_it_is(tmp_path: Path) -> None:
    who = identity(begin(tmp_path))
    assert identity(begin(tmp_path)) == who != identity(begin(tmp_path, name="other"))
    assert DEFINED.precision == "auto", "the devices say"
    assert gone_on(tmp_path).precision == "bf16"
    assert gone_on(tmp_path, replace(ASKED, precision="fp32")).precision == "fp32"


def test_it_keeps_its_rule_of_confirmation(tmp_path: Path) -> None:
    file = begin(tmp_path) / SETTINGS
    assert DEFINED.times_if_diverged == gone_on(tmp_path).times_if_diverged == 2
    assert DEFINED.times_if_collapsed == gone_on(tmp_path).times_if_collapsed == 2
    began = json.loads(file.read_text())
    for name, left in (("times_if_collapsed", 2), ("times_if_diverged", 1)):
        del began[name]  # as studies that are older than the rule
        file.write_text(json.dumps(began))
        older = gone_on(tmp_path)
        assert (older.times_if_diverged, older.times_if_collapsed) == (left, 1)


def test_its_command_is_kept_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["study/launch.py", "--name", "one", "--tracking-uri"]
    monkeypatch.setattr(sys, "argv", [*given, "http://study:planted@mlflow"])
    file = begin(tmp_path) / SETTINGS
    kept = "python -m study.launch --name one --tracking-uri 'http://study:***@mlflow'"
    assert json.loads(file.read_text())["command"] == kept
    # As a study that is older than this was begun; it goes on.
    file.write_text(file.read_text().replace("***", "planted"))
    who = identity(begin(tmp_path))
    begun = json.loads(file.read_text())
    assert begun["command"] == kept and begun["identity"] == who


def test_a_space_whose_budget_has_changed_is_another(tmp_path: Path) -> None:
    begin(tmp_path)
    one = StudyFolder(storage=tmp_path, name="one")
    check_resumable(one, DEFINED)
    changed = replace(DEFINED, budget=replace(DEFINED.budget, rungs=DEFINED.budget.rungs + 1))
    with pytest.raises(BadInput, match="space 'smoke' has changed since study 'one' began"):
        check_resumable(one, changed)


def test_a_study_keeps_the_arm_with_which_it_compares_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(ASKED, against="lora")
    began = StudyDefinition.parse(asked)
    assert began.space.against == "lora" and DEFINED.space.against is None
    one = StudyFolder(storage=tmp_path, name="one")
    file = open_study(one, began, run=began.space.arms, base={}) / SETTINGS
    noted = json.loads(file.read_text())
    assert noted["against"] == noted["settings"]["against"] == "lora"
    check_resumable(one, gone_on(tmp_path, asked))
    with pytest.raises(BadInput, match="was begun with against='lora', not None"):
        check_resumable(one, DEFINED)
    # The project's space may compare otherwise by now; a file of the user's own must not.
    monkeypatch.setattr(spaces, "load", lambda name: replace(SPACE, against="layernorm"))
    check_resumable(one, gone_on(tmp_path, asked))
    other = replace(began, space=replace(began.space, against="layernorm"))
    with pytest.raises(BadInput, match="space 'smoke' has changed since study 'one' began"):
        check_resumable(one, other)


def test_each_search_of_an_arm_has_its_ranges_and_its_trials() -> None:
    once = StudyDefinition.parse(replace(ASKED, trials=None))
    thrice = StudyDefinition.parse(replace(ASKED, trials=None, searches=3))
    ranges, searched = arms_plain(once.space), arms_plain(thrice.space)
    for name in ranges:
        assert searched[f"{name}#3"] == searched[name] == ranges[name]
    assert thrice.budget.trials == 3 * once.budget.trials


def test_a_study_that_compares_all_pairs_notes_nothing_of_it(tmp_path: Path) -> None:
    noted = json.loads((begin(tmp_path) / SETTINGS).read_text())
    assert "against" not in noted and "against" not in noted["settings"]


EARLIER = Space(
    question="?",
    arms={
        "slots": Arm(
            vision=method("lora", targets=("query", "value"), rank=Choice(2, 8)),
            decoder=method("dora", rank=ByBand(first=2, middle=4, last=Choice(4, 8))),
            lr=LogUniform(1e-5, 1e-2),
        ),
        "lora": Arm(
            everywhere=method(
                "lora", dropout=Uniform(0, 0.5), targets=Choice("all", ("query",)), layers="last:1"
            ),
            lr=Choice(1e-3, 0.01),
        ),
        "full": Arm(everywhere=method("full"), lr=1e-05),
    },
)


def test_a_study_goes_on_with_its_own_arms_when_the_projects_space_has_others(
    tmp_path: Path,
) -> None:
    one = StudyFolder(storage=tmp_path, name="one")
    began = replace(DEFINED, space=EARLIER)
    open_study(one, began, run=EARLIER.arms, base={})
    check_resumable(one, gone_on(tmp_path))
    found = gone_on(tmp_path).space
    assert found.question == SPACE.question and [*found.arms] == [*EARLIER.arms]
    for name, arm in EARLIER.arms.items():
        assert found.arms[name].lr == arm.lr
        for slot, tuning in arm.slots.items():
            again = found.arms[name].slots[slot]
            assert (again.name, dict(again.settings)) == (tuning.name, dict(tuning.settings))


def test_a_study_of_the_main_question_goes_on_with_the_targets_that_lora_had(
    tmp_path: Path,
) -> None:
    """Before its targets were searched."""
    asked = Settings(space="layernorm_vs_lora")
    now = StudyDefinition.parse(asked)
    lora = now.space.arms["lora"]
    had = {k: v for k, v in lora.slots["everywhere"].settings.items() if k != "targets"}
    arms = {**now.space.arms, "lora": Arm(everywhere=method("lora", **had), lr=lora.lr)}
    one = StudyFolder(storage=tmp_path, name="one")
    open_study(one, replace(now, space=replace(now.space, arms=arms)), run=arms, base={})
    again = gone_on(tmp_path, asked)
    check_resumable(one, again)
    ranges = {name: spaces.ranges(arm) for name, arm in again.space.arms.items()}
    assert [*ranges] == ["layernorm", "lora"]
    assert {*ranges["lora"]} == {"lora.rank", "lora.alpha_per_rank", "lr"}


def test_a_study_whose_own_arms_are_unknown_here_or_whose_file_changed_is_refused(
    tmp_path: Path,
) -> None:
    file = begin(tmp_path) / SETTINGS
    one = StudyFolder(storage=tmp_path, name="one")
    whole = file.read_text()
    for was, now in (
        ("LogUniform(low", "Normal(low"),
        ("LogUniform(low=0.001", "LogUniform(low=-1"),
        ('"layernorm"', '"layernrom"'),
        ("Choice(values=(2", "Choice(values=(exit(),2"),
    ):
        assert was in whole
        file.write_text(whole.replace(was, now))
        with pytest.raises(BadInput, match="space 'smoke' has changed since study 'one' began"):
            check_resumable(one, gone_on(tmp_path))


def test_an_arm_that_no_longer_fits_is_told(tmp_path: Path) -> None:
    """Which arms are run follows from memory, and so from where it is resumed."""
    begin(tmp_path)
    first, *others = sorted(SPACE.arms)
    with pytest.raises(
        BadInput, match=f"was begun with arms {first}, .* but here it is {others[0]}"
    ):
        begin(tmp_path, run=others)


def test_a_study_goes_on_with_the_search_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another has become the project's, and if it is older than the choice of one."""
    one = StudyFolder(storage=tmp_path, name="one")
    file = begin(tmp_path) / SETTINGS
    began_with = (DEFINED.search, DEFINED.stop, DEFINED.allocate)
    monkeypatch.setattr(search_methods, "SEARCH", "random")
    monkeypatch.setattr(search_methods, "STOP", "none")
    now = StudyDefinition.parse(ASKED)
    assert (now.search, now.stop) == ("random", "none")
    again = gone_on(tmp_path)
    check_resumable(one, again)
    assert (again.search, again.stop, again.allocate) == began_with
    content = json.loads(file.read_text())
    for younger in ("search", "stop", "allocate"):
        del content[younger]
        content["settings"].pop(younger, None)
    content["settings"]["allocate"] = "floor"  # its default then
    file.write_text(json.dumps(content))
    again = gone_on(tmp_path)
    check_resumable(one, again)
    assert (again.search, again.stop, again.allocate) == ("tpe", "asha", "floor")
    with pytest.raises(BadInput, match="was begun with search='auto', not 'grid'"):
        check_resumable(one, gone_on(tmp_path, replace(ASKED, search="grid")))
    with pytest.raises(BadInput, match="was begun with allocate='floor', not 'equal'"):
        check_resumable(one, gone_on(tmp_path, replace(ASKED, allocate="equal")))


def test_a_study_goes_on_although_the_projects_space_has_changed_in_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its arms have other names, so that ``--arm`` finds none, and its budget is another."""
    asked = replace(ASKED, arm="lora", set=["lora.rank=4"])
    began = StudyDefinition.parse(asked)
    one = StudyFolder(storage=tmp_path, name="one")
    open_study(one, began, run=began.space.arms, base={"model": "ab"})
    changed = replace(SPACE, arms={"other": SPACE.arms["layernorm"]}, budget=Budget(trials=1))
    monkeypatch.setattr(spaces, "load", lambda name: changed)
    with pytest.raises(BadInput):
        StudyDefinition.parse(asked)
    again = gone_on(tmp_path, asked)
    check_resumable(one, again)
    assert [*again.space.arms] == ["lora"] and again.budget == began.budget
    assert again.begun_model == "ab"


def test_a_study_goes_on_with_its_number_of_trials_whatever_the_rule_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE % "")
    for space, trials in ((str(file), 24), ("layernorm_vs_lora", 24), ("mile", 138)):
        asked = Settings(space=space)
        one = StudyFolder(storage=tmp_path / Path(asked.space).stem, name="one")
        one.path.parent.mkdir()
        began = StudyDefinition.parse(asked)
        open_study(one, began, run=began.space.arms, base={})
        with monkeypatch.context() as changed:
            changed.setattr(spaces, "TRIALS_PER_RANGE", 50)
            assert StudyDefinition.parse(asked).budget.trials >= 50
            again = gone_on(one.path.parent, asked)
            check_resumable(one, again)
            assert again.budget == began.budget
        content = json.loads((one.path / SETTINGS).read_text())
        del content["budget"], content["allocate"]
        content["settings"].pop("allocate")
        (one.path / SETTINGS).write_text(json.dumps(content))
        oldest = gone_on(one.path.parent, asked)
        assert (oldest.budget.trials, oldest.allocate) == (trials, "floor")


def test_a_study_of_several_arms_goes_on_where_today_fewer_trials_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path)
    monkeypatch.setattr(spaces, "load", lambda name: replace(SPACE, budget=Budget(trials=1)))
    with pytest.raises(BadInput, match="1 trial is too few"):
        StudyDefinition.parse(ASKED)
    assert gone_on(tmp_path).budget == DEFINED.budget


def test_a_file_of_the_users_own_must_not_change(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE % "")
    asked = replace(ASKED, space=str(file))
    began = StudyDefinition.parse(asked)
    one = StudyFolder(storage=tmp_path, name="one")
    open_study(one, began, run=began.space.arms, base={})
    check_resumable(one, gone_on(tmp_path, asked))
    for changed in (MINE % "max_grad_norm=0.5", (MINE % "").replace("lr=1e-3", "lr=2e-3")):
        file.write_text(changed)
        with pytest.raises(BadInput, match="has changed since study 'one' began"):
            check_resumable(one, gone_on(tmp_path, asked))


def test_epochs_are_passes_over_the_training_split(tmp_path: Path) -> None:
    asked = replace(ASKED, epochs=1.5)
    began = StudyDefinition.parse(asked).with_data(101)
    assert began.budget.max_examples == 152
    one = StudyFolder(storage=tmp_path, name="one")
    open_study(one, began, run=SPACE.arms, base={})
    check_resumable(one, gone_on(tmp_path, asked))
    assert gone_on(tmp_path, asked).with_data(101).budget == began.budget
    without = json.loads((one.path / SETTINGS).read_text())
    del without["budget"]["epochs"]  # as studies have it that are older than a budget's epochs
    (one.path / SETTINGS).write_text(json.dumps(without))
    check_resumable(one, gone_on(tmp_path, asked))
    assert gone_on(tmp_path, asked).with_data(101).budget.max_examples == 152
    for wrong, said in (
        ({"epochs": 0.0}, "--epochs must be more than 0, got 0"),
        ({"epochs": 2.0, "max_examples": 9}, "--epochs 2 and --max-examples 9: give one"),
    ):
        with pytest.raises(BadInput, match=said):
            StudyDefinition.parse(replace(ASKED, **wrong))


def test_a_space_may_have_its_budget_in_epochs(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    in_epochs = (MINE % "").replace("ARM})", "ARM}, budget=Budget(epochs=%s))")
    file.write_text(in_epochs % 1.5)
    asked = replace(ASKED, space=str(file))
    began = StudyDefinition.parse(asked).with_data(101)
    assert (began.budget.epochs, began.budget.max_examples) == (1.5, 152)
    one = StudyFolder(storage=tmp_path, name="one")
    open_study(one, began, run=began.space.arms, base={})
    check_resumable(one, gone_on(tmp_path, asked))
    assert gone_on(tmp_path, asked).with_data(101).budget == began.budget
    for given, examples in (({"epochs": 2.0}, 202), ({"max_examples": 64}, 64)):
        other = StudyDefinition.parse(replace(asked, **given)).with_data(101)
        assert other.budget.max_examples == examples
    for changed in (in_epochs % 2, in_epochs.replace("epochs=%s", "max_examples=152")):
        file.write_text(changed)
        with pytest.raises(BadInput, match="has changed since study 'one' began"):
            check_resumable(one, gone_on(tmp_path, asked))


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("epochs=0", "epochs must be more than 0 but got 0"),
        ("epochs='two'", "epochs must be a number but got 'two'"),
        ("epochs=2, max_examples=64", "has epochs=2 and max_examples=64: give one"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(tmp_path: Path, budget: str, said: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text((MINE % "").replace("ARM})", f"ARM}}, budget=Budget({budget}))"))
    with pytest.raises(BadInput, match=said):
        spaces.load(str(file))


def test_the_number_of_trials_follows_from_the_arms_settings() -> None:
    defined = StudyDefinition.parse(Settings(space="layernorm_vs_lora"))
    assert defined.budget.trials == 5 * (1 + 4)
    fixed = replace(defined.settings, set=["lora.targets=all", "lora.rank=8"])
    assert StudyDefinition.parse(fixed).budget.trials == 5 * (1 + 2)
    narrow = replace(ASKED, space="mile", arm="lora4_lora4_lora4")
    assert StudyDefinition.parse(narrow).budget.trials == LEAST
    narrow = replace(narrow, space="intrinsic", arm="lora,ia3", set=["lora.rank=4,8"])
    assert StudyDefinition.parse(narrow).budget.trials == 5 * (2 + 1)


MUON = pytest.mark.needs("torch", TORCH_OF["muon"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=MUON if name == "optimizer" else ())
        for name in sorted({*spaces.SPACES.names()} - {"smoke"})
    ],
)
def test_every_arm_of_a_shipped_space_gets_the_trials_to_say_what_it_may_still_gain(
    name: str,
) -> None:
    defined = StudyDefinition.parse(Settings(space=name))
    assert defined.budget.trials >= LEAST * len(defined.space.arms)
    assert defined.budget.trials == spaces.default_trials(defined.space)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path, number: str) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(f'{{"gradient_clipping": {number}}}')
    with pytest.raises(BadInput, match=r"--deepspeed .*\.json is no JSON: Out of range") as error:
        StudyDefinition.parse(replace(ASKED, deepspeed=str(file)))
    assert "\n" not in str(error.value)


MINE = """from search_spaces.declare import *
ARM = Arm(everywhere=method("lora"), lr=1e-3, training=training(%s))
SPACE = Space(question="?", arms={"a": ARM})
"""


@pytest.mark.parametrize(
    ("setting", "deepspeed", "said"),
    [
        pytest.param('optimizer="muon"', "0", "", marks=MUON),
        pytest.param(
            'optimizer="muon"',
            "2",
            "2 divides what is trained, which optimizer 'muon' of arm 'a'",
            marks=MUON,
        ),
        pytest.param(
            'optimizer="muon"', "mine.json", "mine.json divides what is trained", marks=MUON
        ),
        ("max_grad_norm=0.5", "3", ""),
        ("max_grad_norm=0.5", "mine.json", "decides itself how gradients are clipped, but arm 'a'"),
    ],
)
def test_an_engine_that_cannot_train_as_an_arm_asks_is_refused(
    setting: str, deepspeed: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE % setting)
    Path("mine.json").write_text('{"zero_optimization": {"stage": 1}}')
    asked = replace(ASKED, space="mine.py", deepspeed=deepspeed)
    with pytest.raises(BadInput, match=said) if said else nullcontext():
        StudyDefinition.parse(asked)


def test_an_optimizer_whose_package_is_missing_is_refused_before_a_study_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name)
    )
    (tmp_path / "mine.py").write_text(MINE % 'optimizer=Choice("adamw", "adamw_8bit")')
    asked = replace(ASKED, space=str(tmp_path / "mine.py"))
    with pytest.raises(BadInput, match="needs the package bitsandbytes") as error:
        StudyDefinition.parse(asked)
    assert "\n" not in str(error.value)


def test_a_study_that_is_older_than_a_setting_ran_with_its_default(tmp_path: Path) -> None:
    file = begin(tmp_path) / SETTINGS
    content = json.loads(file.read_text())
    for younger in ("identity", "run", "budget"):
        del content[younger]
    del content["settings"]["group_by_length"], content["settings"]["beams"]
    file.write_text(json.dumps(content))
    one = StudyFolder(storage=tmp_path, name="one")
    assert read(one) == ASKED
    check_resumable(one, DEFINED)
    assert identity(begin(tmp_path)) == ""
    longer = replace(DEFINED, settings=replace(ASKED, group_by_length=True))
    with pytest.raises(BadInput, match="was begun with group_by_length=False, not True"):
        check_resumable(one, longer)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:100], " is no JSON: Unterminated string"),
        (lambda text: "[]", ": the whole should be an object, not []"),
        (
            lambda text: text.replace('"seeds": 3', '"seeds": "3"'),
            ": settings.seeds should be a whole number, not '3'",
        ),
        (
            lambda text: text.replace('"rungs": 1', '"rungs": null'),
            ": budget.rungs should be a whole number, not null",
        ),
        (
            lambda text: text.replace('"reduction": 3', '"reduction": 0'),
            ": budget: reduction must be at least 2",
        ),
        (lambda text: text.replace('"begun"', '"began"'), " lacks begun"),
        (
            lambda text: text.replace('"trials"', '"trails"'),
            " has settings.trails, which is unknown here",
        ),
        (
            lambda text: text.replace('"version": 1', '"version": 2'),
            " is of version 2; this reads 1: go on with the version of this program",
        ),
    ],
    ids=[
        "cut short",
        "a list",
        "a text",
        "none",
        "no value",
        "a key is missing",
        "a key is unknown",
        "newer",
    ],
)
def test_a_study_json_that_no_study_wrote_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[str], str], said: str
) -> None:
    file = begin(tmp_path) / SETTINGS
    whole = file.read_text()
    file.write_text(damage(whole))
    assert file.read_text() != whole
    for given in (["--resume", "one"], ["--space", "smoke", "--name", "one"]):
        assert launch.main([*given, "--storage", str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {file}") and said in line


def test_a_name_with_a_path_in_it_is_no_studys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = begin(tmp_path)
    (elsewhere / "results.json").write_text("{}")
    storage = tmp_path / "studies"
    storage.mkdir()
    begun = begin(storage, name="two")
    for name in ("../one", f"two/../../{elsewhere.name}", "."):
        with pytest.raises(BadInput, match=r"unknown study .*there are: two"):
            read(StudyFolder(storage=storage, name=name))
    with pytest.raises(BadInput, match=f"give {elsewhere.name} --storage {elsewhere.parent}$"):
        read(StudyFolder(storage=storage, name=str(elsewhere)))
    (begun / "results.json").write_text("{}")
    assert report.main(["../one", "--storage", str(storage)]) == 2
    assert "unknown study '../one'" in capsys.readouterr().err


def test_every_setting_of_a_study_is_an_option() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Settings, groups=GROUPS)
    named = {action.dest for action in parser._actions} - {"help"}
    assert named == {field.name for field in fields(Settings)}


@pytest.mark.parametrize(
    ("space", "name"),
    [
        ("smoke", "smoke-jsonl-001"),
        ("my space.py", "my-space-jsonl-001"),
        ("fälle/größe 2.py", "gr-e-2-jsonl-001"),
        ("病.py", "space-jsonl-001"),
        ("..py", "space-jsonl-001"),
        (f"{'x' * 200}.py", f"{'x' * 90}-001"),
    ],
)
def test_a_new_study_has_a_name_that_it_may_have(tmp_path: Path, space: str, name: str) -> None:
    found = free_name(tmp_path, Settings(space=space, data="jsonl"))
    check_study_name(tmp_path, found)
    assert found == name
