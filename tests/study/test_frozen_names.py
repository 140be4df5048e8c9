"""Names in what a study writes stay as they are: stored studies and programs of others read them.

A trial's id is a digest of the names and values of its ``TrialSpec`` and its methods' ``Config``.
If one is renamed, or a default changes, a study that goes on takes its ended trials for others and
runs them again. A word that turned out to be a bad one is mapped to a better one where it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from study import plan
from study.config.checked_data import CheckedData
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.study_json import open_study
from study.planning import provenance
from study.planning.placement import Infeasible
from study.planning.study_plan import StudyPlan
from study.planning.workload_profile import WorkloadProfile
from study.search.scheduler import StudyScheduler
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.spec import Kind, TrialSpec
from tests.study.made_up import play, play_all
from trainables import registry
from trainables.audit.audit import Audit
from trainables.data import phantom
from trainables.recipe import Recipe

SPEC = "kind arm parameters recipe lr seed max_examples batch_size stops base training"
YOUNGER = "split"
"""Fields that a journal has only where they are off their defaults."""
IDS = {
    "adapter": "737b16ddee97",
    "attention": "b3a0e4862fb3",
    "bitfit": "c299775f0b86",
    "dora": "29287478145e",
    "ffn": "cce0abcb77b1",
    "frozen": "4670d3314710",
    "full": "27ecdaa3d369",
    "ia3": "a40352ec8913",
    "layernorm": "6ff4200effd0",
    "lora": "af3ecbb9f5a8",
    "oft": "17ccfec8125a",
    "prefix": "690c3954d5fa",
    "prompt": "5b4c36c2a7d0",
    "ptv2": "45301887e336",
    "vera": "85e7e437034f",
}
"""Method that ships -> id of ``trial_of`` it."""
ANSWERS = "question_id image_id question answer_type truth answer correct credit"
PROTOCOL = (
    "settings budget deepspeed precision label_smoothing questions_per_image group_by_length beams "
    "answer_tokens model data versions not_run identity commit command begun searcher stopper "
    "allocation"
)
SETTINGS = (
    "space model image_size data data_root split allow_leak ood trials max_examples allowance "
    "allocate seed seeds objective under margin deepspeed precision label_smoothing "
    "questions_per_image group_by_length beams"
)
BEGUN = (
    "version identity settings arms run budget search stop allocate times_if_diverged "
    "times_if_collapsed base command begun"
)
BASE = "model data deepspeed precision label_smoothing beams"
PLAN = "arm recipe trained_parameters total_parameters percent slots memory probe placement"
MEMORY = (
    "peak_gib weights_gib trained_gib gradients_gib optimizer_gib activations_gib features_gib "
    "batch_gib workspace_gib layer_gib copied_gib pieces_gib passes_gib passes_alone_gib evaluating"
)
PLACEMENT = (
    "feasible lane devices deepspeed checkpointing micro_batch pieces evaluation_batch sharing "
    "reason host_gib peak_gib"
)


def trial_of(method: str) -> TrialSpec:
    return TrialSpec(
        kind=Kind.SEARCH,
        arm="arm",
        parameters={"lr": 1e-3},
        recipe=Recipe.from_plain({"decoder": {"method": method}}).plain(),
        lr=1e-3,
        seed=0,
        max_examples=960,
        batch_size=32,
        stops=(320, 960),
        base="base",
    )


def test_trials_keep_their_ids() -> None:
    assert {name: trial_of(name).id for name in registry.METHODS.names()} == IDS
    assert {field.name for field in fields(TrialSpec)} == {*SPEC.split(), *YOUNGER.split()}


def test_tables_of_answers_keep_their_columns(tmp_path: Path) -> None:
    asked = phantom.load(None).test[:1]
    folder = StudyFolder(storage=tmp_path, name="study")
    answers.write(folder, "trial", "test", asked, ["yes"])
    assert answers.read(folder, "trial", "test").column_names == ANSWERS.split()


def study_plan(**given: Any) -> StudyPlan:
    """A plan of a model that is not loaded; nothing fits anywhere."""
    settings = Settings(space="smoke", **given)
    dataset = phantom.load(None)
    profile = WorkloadProfile(
        model="tiny",
        digest="ab",
        digest_1="ab",
        parameters=1,
        image_size=96,
        slots=("vision", "fusion", "decoder"),
        images=1,
        question_tokens=9,
        answer_tokens=10,
        beams=1,
        device="cpu",
        arms={},
        sizes={},
        steps={},
    )
    definition = StudyDefinition.parse(settings)
    audit = Audit(dataset="phantom", description="", digest="", splits={}, findings=())
    return StudyPlan(
        name="study",
        definition=definition,
        data=CheckedData(dataset=dataset, ood={}, audit=audit),
        profile=profile,
        majority={},
        precision="fp32",
        concurrency=1,
        space=definition.space,
        placements={},
        untuned=None,
        corrections={},
        nowhere={"lora": Infeasible(least=1, reason="too large")},
    )


def test_the_protocol_keeps_its_keys(tmp_path: Path) -> None:
    planned = study_plan()
    folder = StudyFolder(storage=str(tmp_path), name="study")
    open_study(folder, planned.definition, run=["lora"], base=provenance.base(planned))
    protocol = provenance.describe(planned, folder.path)
    assert {*protocol} == {*PROTOCOL.split()}
    assert {*protocol["settings"]} == {*SETTINGS.split()}
    assert [*protocol["budget"]] == "trials max_examples reduction rungs batch_size".split()
    assert [*protocol["model"]] == "name digest image_size".split()
    assert [*protocol["data"]] == "name digest questions ood findings".split()
    assert [*protocol["versions"]] == ["python", *provenance.PACKAGES]
    begun = json.loads((folder.path / "study.json").read_text("utf-8"))
    assert [*begun] == BEGUN.split()


def test_what_all_numbers_depend_on_keeps_its_keys_and_their_order() -> None:
    """The digest of ``base`` is part of each trial's id."""
    assert [*provenance.base(study_plan())] == BASE.split()
    settings = {"prompt": "Well, {question}", "system": "You read X-rays.", "choose": "likelihood"}
    for name, value in {"questions_per_image": 2, "group_by_length": True, **settings}.items():
        assert [*provenance.base(study_plan(**{name: value}))] == [*BASE.split(), name]


def test_the_journal_keeps_its_attributes(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    scheduler = begin()
    spec = scheduler.next()
    assert spec is not None
    scheduler.journal.record_placement(spec.id, {"lane": "solo"})
    play(scheduler, spec)
    play_all(scheduler)
    scheduler.journal.record_seconds(1.0)
    scheduler.journal.end_search()
    written: dict[str, Any] = {}
    for line in (tmp_path / "study" / "optuna.journal").read_text("utf-8").splitlines():
        written |= json.loads(line).get("user_attr", {})
    noted = {name.partition(":")[0]: value for name, value in written.items()}
    assert {*noted} == {"begin", "ran", "rung", "end", "seconds", "cut_short"}
    assert {*noted["begin"]} == {"spec", "started_at"}
    assert {*noted["begin"]["spec"]} == {*SPEC.split()}
    rung = "examples_seen validation_loss train_loss seconds reported_at costs"
    assert {*noted["rung"]} == {*rung.split()}
    assert {*noted["end"]} == {*"outcome ended_at costs scores scoring error remark".split()}


@pytest.mark.parametrize(
    ("device_gib", "keys"), [("8", PLACEMENT), ("1", "feasible reason least_gib")]
)
def test_the_plan_for_programs_keeps_its_keys(
    device_gib: str, keys: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "one_arm.py"
    space.write_text(
        "import dataclasses\n"
        "from search_spaces.smoke import SPACE as whole\n"
        "SPACE = dataclasses.replace(whole, arms={'lora': whole.arms['lora']})\n"
    )
    asked = (
        "--space",
        str(space),
        "--batch-size",
        "2",
        "--devices",
        "1",
        "--device-gib",
        device_gib,
    )
    probe = ("--probe",) if keys == PLACEMENT else ()
    assert plan.main([*asked, *probe, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert {*row, "probe"} == {*PLAN.split()} and ("probe" in row) == bool(probe)
    slot = "slot tuning trained_parameters total_parameters trained_layers total_layers"
    assert {*row["slots"][0]} == {*slot.split(), "without_experts"}
    assert {*row["memory"]} == {*MEMORY.split()}
    if probe:
        probed = "micro_batch pieces peak_gib correction corrected_gib"
        assert {*row["probe"]} == {*probed.split()}
    assert {*row["placement"]} == {*keys.split()}
