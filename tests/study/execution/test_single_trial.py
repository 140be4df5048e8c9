"""A trial that is trained by hand is the one that a study draws, and has its losses."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces.declare import Choice, LogUniform
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.execution import single_trial
from study.execution.single_trial import SingleTrial
from study.planning import provenance
from study.search.scheduler import StudyScheduler
from study.trials.record import Outcome
from study.trials.spec import TrialSpec
from tests.study import small
from tests.study.made_up import rules
from trainables.errors import BadInput
from trainables.training.trial import Trial
from trainables.workload import Workload


def point(**settings: Any) -> single_trial.Point:
    asked = Settings(space="smoke", **settings)
    return single_trial.point(StudyDefinition.parse(asked))


def test_what_is_not_given_is_the_middle_of_its_range() -> None:
    found = point(arm="lora", set=["lr=0.003", "warmup=0.1"])
    assert found.given == {"lr": 0.003} and found.typical == {"lora.rank": 8}
    found = point(arm="lora", set=["lora.rank=2,4,8"])
    assert found.given == {} and found.typical["lora.rank"] == 4
    assert found.typical["lr"] == pytest.approx((1e-4 * 3e-2) ** 0.5)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (None, "space 'smoke' has several arms; give --arm, one of layernorm, lora"),
        ("lora,layernorm", "--arm lora,layernorm names several arms"),
        ("lorra", "unknown arm 'lorra'; did you mean 'lora'?"),
    ],
)
def test_one_arm_is_asked_for(arm: str | None, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        point(arm=arm)


def test_it_is_the_trial_that_a_study_draws(tmp_path: Path) -> None:
    """The same id: what the user gives is a parameter of the search all the same."""
    config = small.config(tmp_path)
    workload = Workload.load(config.workload)
    asked = Settings(
        space="smoke",
        arm="lora",
        set=["lr=0.003", "lora.rank=8"],
        model=config.workload.model,
        data="jsonl",
        data_root=config.workload.data_root,
        split="by_image",
    )
    definition = StudyDefinition.parse(asked)
    spec = single_trial.spec_of(single_trial.point(definition), definition, workload, "fp32")
    whole = StudyDefinition.parse(replace(asked, arm=None, set=None))
    base = provenance.base_of(
        whole, model=workload.digest, data=workload.dataset.digest, precision="fp32", beams=1
    )
    drawn = drawn_by_a_study(whole, tuple(workload.model.slots), provenance.digest(base))
    assert spec == drawn and spec.id == drawn.id


def drawn_by_a_study(definition: StudyDefinition, slots: tuple[str, ...], base: str) -> TrialSpec:
    """What a study's scheduler makes of a point."""
    scheduler = StudyScheduler.__new__(StudyScheduler)
    scheduler.rules = replace(
        rules(), space=definition.space, budget=definition.budget, slots=slots, base=base
    )

    def draw(name: str, values: Choice | LogUniform) -> object:
        return {"lr": 0.003, "lora.rank": 8}[name]

    return scheduler._spec("lora", draw)


def test_it_has_the_losses_of_a_host(tmp_path: Path) -> None:
    config = small.config(tmp_path)
    steps = list[tuple[int, float]]()

    def stepped(trial: Trial) -> None:
        steps.append((trial.examples_seen, trial.last_loss))

    definition = StudyDefinition.parse(Settings(space="smoke", arm="lora"))
    definition = replace(definition, workload=config.workload)
    one = SingleTrial(
        definition=definition,
        spec=small.spec(),
        workload=Workload.load(config.workload),
        precision="fp32",
        threads=1,
    )
    reports = list(one.train(stepped, print))
    expected = small.alone(config, small.spec())
    assert small.losses(reports) == small.losses(expected)
    assert [r.rung and r.rung.train_loss for r in reports] == [
        r.rung and r.rung.train_loss for r in expected
    ]
    assert reports[-1].scores == pytest.approx(expected[-1].scores, nan_ok=True)
    assert reports[-1].outcome is Outcome.COMPLETE
    assert [seen for seen, _ in steps] == list(range(small.BATCH, small.STOPS[-1] + 1, small.BATCH))
    rung = reports[0].rung
    assert rung is not None
    assert sum(loss for _, loss in steps[:2]) / 2 == rung.train_loss


def test_a_trial_that_cannot_go_on_says_why(tmp_path: Path) -> None:
    config = small.config(tmp_path)
    definition = StudyDefinition.parse(Settings(space="smoke", arm="lora"))
    one = SingleTrial(
        definition=replace(definition, workload=config.workload),
        spec=small.spec(lr=1e12),
        workload=Workload.load(config.workload),
        precision="fp32",
        threads=1,
    )
    reports = list(one.train(lambda _: None, print))
    assert reports[-1].outcome is Outcome.DIVERGED and "loss is" in reports[-1].error


def test_epochs_are_counted_in_its_data(tmp_path: Path) -> None:
    config = small.config(tmp_path)
    asked = Settings(
        space="smoke",
        arm="lora",
        model=config.workload.model,
        data="jsonl",
        data_root=config.workload.data_root,
        split="by_image",
        epochs=1.5,
    )
    one = SingleTrial.load(StudyDefinition.parse(asked), None)
    questions, batch = len(one.workload.dataset.train), one.spec.batch_size
    assert one.definition.budget.max_examples == 1.5 * questions == 75
    assert one.spec.max_examples == math.ceil(75 / batch) * batch


def test_it_is_tried_with_fewer_questions_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials of an arm run one after another, as in a study."""
    config = small.config(tmp_path)
    workload = Workload.load(config.workload)
    family: Any = type(workload.model)
    losses, room, asked_at_once = family.losses, 1, list[int]()

    def hungry(model: Any, network: Any, batch: Any, **settings: Any) -> torch.Tensor:
        if network.training:
            asked_at_once.append(len(batch.image_B))
            if asked_at_once[-1] > room:  # more than any machine has
                torch.empty(2**60, dtype=torch.uint8)
        found: torch.Tensor = losses(model, network, batch, **settings)
        return found

    monkeypatch.setattr(family, "losses", hungry)
    definition = StudyDefinition.parse(Settings(space="smoke", arm="lora"))
    definition = replace(
        definition,
        workload=config.workload,
        budget=replace(definition.budget, batch_size=small.BATCH),
    )
    one = SingleTrial(
        definition=definition, spec=small.spec(), workload=workload, precision="fp32", threads=1
    )
    said = list[str]()
    reports = list(one.train(lambda _: None, said.append))
    assert small.BATCH == 4 and len(said) == 2, "four, two, one"
    assert {*asked_at_once} == {4, 2, 1} and reports[-1].outcome is Outcome.COMPLETE
    room = 0
    reports = list(one.train(lambda _: None, said.append))
    assert [report.outcome for report in reports] == [Outcome.OUT_OF_MEMORY]
