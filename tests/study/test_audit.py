"""The command that audits a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study import audit
from tests.trainables.data.small import jsonl


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A user's folder whose test questions are all in training too."""
    splits = ("train", "test")
    lines = [
        {**row, "question_id": f"{split}{number}", "split": split}
        for split in splits
        for number, row in enumerate(jsonl.rows())
    ]
    jsonl.write(tmp_path, lines)
    return tmp_path


def test_what_stops_a_study_is_exit_code_2(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["--data", "jsonl", "--data-root", str(root)]) == 2
    said = capsys.readouterr().out
    assert "STOP  60 of 60 test questions (100.0%) are also in train or validation" in said


def test_split_by_image_it_is_clean(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", "jsonl", "--data-root", str(root), "--split", "by_image", "--json"]
    assert audit.main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dataset"] == "jsonl"
    assert sum(facts["questions"] for facts in said["splits"].values()) == 120
    assert [finding["kind"] for finding in said["findings"]] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "slak"], "did you mean 'slake'"),
        (["--data", "slake"], "add --data-root DIR"),
        (["--data", "phantom,slak"], "did you mean 'slake'"),
        (["--data", "slake", "--data-root", "/nowhere"], "/nowhere is not a folder"),
        (["--split", "by_images"], "did you mean 'by_image'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ") and said.count("\n") == 1
