"""Scores of arms by their stored answers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from study.analysis.arm_scores import ArmScores
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import TrialRecord
from study.trials.spec import Kind, TrialSpec
from trainables.data.common.dataset import Example
from trainables.measures.common.scores import score

QUESTIONS, SEEDS = 60, 3
EXAMPLES = [
    Example(
        question_id=str(n),
        image_id=str(n // 3),
        image=Path(f"{n // 3}.png"),
        question="which ?",
        answer="B" if n % 2 else "no",
        answer_type="open" if n % 2 else "closed",
        options=("ct", "mri", "x ray") if n % 2 else (),
    )
    for n in range(QUESTIONS)
]


def confirmed(
    folder: StudyFolder, arm: str, share: float, examples: Sequence[Example] = EXAMPLES
) -> list[TrialRecord]:
    """Confirmations of an arm that gives so many right answers."""
    records = []
    for seed in range(SEEDS):
        drawn = np.random.default_rng(seed).random(QUESTIONS) < share
        given = [e.answer if right else "C" for e, right in zip(examples, drawn, strict=True)]
        spec = TrialSpec(
            kind=Kind.CONFIRM,
            arm=arm,
            parameters={},
            recipe={},
            lr=0.1,
            seed=seed,
            max_examples=1,
            batch_size=1,
            stops=(1,),
            base="",
        )
        answers.write(folder, spec.id, "test", examples, given)
        scores = {f"test.{name}": value for name, value in score(examples, given).items()}
        records.append(TrialRecord(spec=spec, number=0, started_at=0.0, scores=scores))
    return records


def test_choices_have_an_interval_and_no_comparison(tmp_path: Path) -> None:
    """They are scored as the questions with options would be by themselves."""
    folder = StudyFolder(storage=tmp_path, name="s")
    records = {"a": confirmed(folder, "a", 0.8), "b": confirmed(folder, "b", 0.4)}
    scored = ArmScores(
        study_folder=folder, confirmed=records, untuned=[], train=EXAMPLES, margin=1.0
    )
    found = scored.score_dataset("test", "made up", EXAMPLES)
    (best, other) = found.arms
    for arm in (best, other):
        choice = arm.test["choice"]
        assert choice.low is not None and choice.high is not None and choice.mean is not None
        assert choice.low < choice.mean < choice.high
        # Here the questions with options are the open ones.
        assert choice == arm.test["open"]
        own = [record.scores["test.choice"] for record in records[arm.arm]]
        assert choice.mean == pytest.approx(np.mean(own))
    assert [set(pair.parts) & {"choice", "open"} for pair in found.comparisons] == [{"open"}]
    assert found.shown["choice"] == "choice %"


def test_there_are_no_choices_without_options(tmp_path: Path) -> None:
    folder = StudyFolder(storage=tmp_path, name="s")
    plain = [replace(example, options=()) for example in EXAMPLES]
    records = {"a": confirmed(folder, "a", 0.8, plain)}
    scored = ArmScores(study_folder=folder, confirmed=records, untuned=[], train=plain, margin=1.0)
    (arm,) = scored.score_dataset("test", "made up", plain).arms
    assert "choice" not in arm.test
