"""Stored answers, and what becomes of their scores when the rules of scoring change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import TrialRecord
from study.trials.spec import Kind, TrialSpec
from trainables.data.common.dataset import Example
from trainables.measures.common import scores


def example(number: int, answer: str) -> Example:
    return Example(
        question_id=str(number),
        image_id=str(number),
        image=Path("/nowhere.png"),
        question="is there a lesion ?",
        answer=answer,
        answer_type="closed",
    )


EXAMPLES = [example(0, "yes"), example(1, "no")]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder.from_path(tmp_path)
    answers.write(folder, "trial", "test", EXAMPLES, ["yes", "yes"])
    return folder


def test_a_table_says_by_which_rules_it_was_scored(folder: StudyFolder) -> None:
    table = answers.read(folder, "trial", "test")
    assert table["credit"].to_pylist() == [1.0, 0.0]
    assert table.schema.metadata[answers.SCORING] == str(scores.VERSION).encode()


def test_answers_that_older_rules_scored_are_scored_anew(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder.answers("trial", "test")
    before = file.read_bytes()
    table = pq.read_table(file)
    wrong = table.set_column(table.schema.get_field_index("credit"), "credit", [[0.0, 0.0]])
    pq.write_table(wrong, file)
    assert answers.read(folder, "trial", "test")["credit"].to_pylist() == [0.0, 0.0]
    monkeypatch.setattr(scores, "VERSION", scores.VERSION + 1)
    assert answers.read(folder, "trial", "test")["credit"].to_pylist() == [1.0, 0.0]
    found = answers.scored_anew(folder, "trial", ["test"])
    assert found["test.overall"] == found["test.closed"] == 50.0
    assert file.read_bytes() != before, "the file stays as it was"


def test_trials_that_older_rules_scored_have_their_scores_by_the_rules_of_today(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TrialSpec(
        kind=Kind.SEARCH,
        arm="lora",
        parameters={},
        recipe={},
        lr=0.1,
        seed=0,
        max_examples=1,
        batch_size=1,
        stops=(1,),
        base="",
    )
    answers.write(folder, spec.id, "validation", EXAMPLES, ["yes", "yes"])
    monkeypatch.setattr(scores, "VERSION", scores.VERSION + 1)
    then = {"validation.overall": 90.0}
    older, unscored = (TrialRecord(spec=spec, number=n, started_at=0.0) for n in range(2))
    newer = replace(older, scores=then, scoring=scores.VERSION)
    older.scores = dict(then)
    found = answers.scored_by_older_rules([older, unscored, newer])
    assert found == [older]
    answers.score_again(folder, found)
    assert (older.scores["validation.overall"], older.scoring) == (50.0, scores.VERSION)
    assert newer.scores == then and not answers.scored_by_older_rules([older, unscored, newer])


def test_a_table_has_the_options_and_the_one_that_was_chosen(tmp_path: Path) -> None:
    options = ("ct", "mri", "x ray")
    examples = [replace(example(n, "B"), options=options) for n in range(3)] + EXAMPLES[1:]
    folder, given = StudyFolder.from_path(tmp_path), ["It is mri.", "C", "ct or mri", "no"]
    examples[-1] = replace(examples[-1], question_id="last")
    answers.write(folder, "trial", "test", examples, given)
    table = answers.read(folder, "trial", "test")
    assert table["chosen"].to_pylist() == ["mri", "x ray", None, None]
    assert table["options"].to_pylist() == [[*options]] * 3 + [[]]
    assert table["correct"].to_pylist() == [True, False, False, True]
    found = answers.scored_anew(folder, "trial", ["test"])
    assert found["test.choice"] == pytest.approx(100 / 3)


def test_tables_without_options_are_as_they_were(folder: StudyFolder) -> None:
    assert not {"chosen", "options"} & {*answers.read(folder, "trial", "test").column_names}


def test_a_table_that_is_older_than_the_note_is_of_version_1(folder: StudyFolder) -> None:
    file = folder.answers("trial", "test")
    pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    assert answers.read(folder, "trial", "test")["credit"].to_pylist() == [1.0, 0.0]
