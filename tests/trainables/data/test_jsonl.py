"""A user's own manifest: what may be left away, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.data.small.jsonl import rows, write
from trainables.audit.audit import examine
from trainables.data import jsonl, phantom
from trainables.errors import BadInput


def test_what_is_left_away_is_filled_in(tmp_path: Path) -> None:
    write(tmp_path)
    data = jsonl.load(tmp_path)
    everything = {e.question_id: e for examples in data.splits().values() for e in examples}
    closed, opened = everything["1"], everything["2"]  # ids are numbers of lines
    assert (closed.answer, closed.answer_type) == ("no", "closed")
    assert (opened.answer, opened.answer_type) == ("a hand", "open")
    assert closed.image_id == "images/0.png"
    assert closed.image == tmp_path / "images" / "0.png"
    images = [{e.image_id for e in examples} for examples in data.splits().values()]
    assert len(set.union(*images)) == sum(map(len, images)) == 30


def test_what_is_given_is_kept(tmp_path: Path) -> None:
    given = {
        "answer": 2,
        "answer_type": "closed",
        "question_id": "q",
        "image_id": "i",
        "question_type": "count",
        "split": "test",
    }
    lines = [{**row, "split": "train"} for row in rows()]
    write(tmp_path, [*lines[2:], {**rows()[0], **given}])
    (example,) = jsonl.load(tmp_path).test
    assert (example.question_id, example.image_id) == ("q", "i")
    assert (example.answer, example.answer_type) == ("2", "closed")
    assert example.question_type == "count"


def test_the_images_of_a_patient_go_together(tmp_path: Path) -> None:
    named = [{**row, "patient": f"p{i // 4}"} for i, row in enumerate(rows())]
    write(tmp_path, named)
    data = jsonl.load(tmp_path)
    patients = [{e.patient for e in examples} for examples in data.splits().values()]
    assert len(set.union(*patients)) == sum(map(len, patients)) == 15
    assert data.train[0].unit == f"patient:{data.train[0].patient}"
    write(tmp_path, [{**row, "group": f"p{i // 4}"} for i, row in enumerate(rows())])
    assert jsonl.load(tmp_path) == data
    splits = ("train", "test", "validation")
    write(tmp_path, [{**row, "split": splits[i // 2 % 3]} for i, row in enumerate(named)])
    audited = examine(jsonl.load(tmp_path))
    (shared,) = [f for f in audited.findings if f.kind == "test_patients_shared"]
    assert (shared.severity, shared.count) == ("warn", 10)
    assert "10 of 10 test patients are also in train or validation" in shared.text
    assert "patients: 10 in train, 10 in validation, 10 in test" in audited.lines()


def test_without_a_validation_split_one_is_carved_from_training(tmp_path: Path) -> None:
    write(tmp_path, [{**r, "split": "test" if i < 4 else "train"} for i, r in enumerate(rows())])
    data = jsonl.load(tmp_path)
    assert len(data.test) == 4
    assert len(data.train) + len(data.validation) == 56
    assert {e.image_id for e in data.train}.isdisjoint(e.image_id for e in data.validation)


def test_null_is_as_if_left_away(tmp_path: Path) -> None:
    write(tmp_path)
    before = jsonl.load(tmp_path)
    optional = ("answer_type", "question_id", "image_id", "question_type", "split")
    write(tmp_path, [{**row, **dict.fromkeys(optional)} for row in rows()])
    assert jsonl.load(tmp_path) == before


def test_too_few_images_to_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, rows()[:2])
    with pytest.raises(BadInput, match=r"falls into the .* split; give more images"):
        jsonl.load(tmp_path)


def test_the_manifest_of_phantom_is_one() -> None:
    drawn = phantom.load(None)
    read = jsonl.load(drawn.train[0].image.parents[1])
    assert read.splits() == drawn.splits()
    assert read.digest == drawn.digest


def test_empty_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "questions.jsonl"
    before = jsonl.load(tmp_path)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes() + b"\r\n\n")
    assert jsonl.load(tmp_path) == before


def test_options_are_texts_or_numbers_and_the_answer_is_one_of_them(tmp_path: Path) -> None:
    more = [
        {"answer": 2, "options": [1, 2, 3.5]},
        {"answer": "b", "options": ["A: ct ", "B: mri"]},
        {"answer": "MRI", "options": ["ct", "mri"], "answer_type": "open"},
    ]
    lines = [{**row, "split": "train"} for row in rows()]
    write(tmp_path, [*lines[len(more) :], *({**lines[0], "split": "test", **m} for m in more)])
    found = jsonl.load(tmp_path)
    assert [(e.answer, e.options, e.answer_type) for e in found.test] == [
        ("2", ("1", "2", "3.5"), "closed"),
        ("B", ("ct", "mri"), "closed"),
        ("mri", ("ct", "mri"), "open"),
    ]
    assert len({e.options for e in found.train}) == 1, "other questions have none"
    write(tmp_path, [*lines[len(more) :], *({**lines[0], "split": "test"} for _ in more)])
    assert jsonl.load(tmp_path).digest != found.digest


def changed(**fields: Any) -> str:
    return json.dumps({**rows()[0], **fields})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 61 of .* is not JSON"),
        ("[" * 100_000, "line 61 of .* is not JSON"),
        ("[]", "line 61 of .*: the whole should be an object"),
        ("{}", "line 61 of .* lacks image"),
        (changed(answer=" "), "line 61 of .*: answer is empty"),
        (changed(answer=None), "answer should be a text, not null"),
        (changed(answer=["a"]), r"answer should be a text, not \['a'\]"),
        (changed(answer=float("nan")), "line 61 of .*: answer should be a text, not NaN"),
        (changed(question=float("-inf")), "question should be a text, not -Infinity"),
        (
            changed(question_type=1).replace("1}", "1e999}"),
            "question_type .* not Infinity",
        ),
        (changed(spilt="test"), "unknown field .* 'spilt'; did you mean 'split'"),
        (changed(split="val"), "split should be 'train', 'validation' or 'test', not 'val'"),
        (changed(split="tset"), r"not 'tset'; did you mean 'test'\?"),
        (changed(answer_type="CLOSED"), "should be 'open', 'closed' or 'report', not 'CLOSED'"),
        (changed(split="train"), "60 lines of .* have no split but others do"),
        (changed(image="../secret.png"), "outside"),
        (changed(image="/etc/passwd"), "outside"),
        (changed(image="images/99.png"), r"1 of 31 images are missing, first .*99\.png"),
        (changed(image="images/0.png", image_id="images/1.png"), "one id is one file"),
        (changed(question_id="1"), "'1'.*used twice"),
        (
            changed(patient="p"),
            "image 'images/0.png' is of patient '' and of 'p'; an image has",
        ),
        (changed(patient="p", group="g"), "patient and group are both given; give one"),
        (changed(options="yes no"), "line 61 of .*: options should be a list, not 'yes no'"),
        (changed(options={"A": "no"}), "line 61 of .*: options should be a list"),
        (changed(options=[]), "line 61 of .*: options must be 2 to 26 but there are 0"),
        (changed(options=["no"]), "line 61 of .*: options must be 2 to 26 but there are 1"),
        (changed(options=["no", "No."]), "line 61 of .*: options A and B are equal: 'No.'"),
        (changed(options=["no", " "]), "line 61 of .*: option B is empty"),
        (changed(options=["no", None]), r"line 61 of .*: options\[1\] should be a text, not null"),
        (changed(options=["no", ["a"]]), r"options\[1\] should be a text, not \['a'\]"),
        (
            changed(options=["ct", "mri"]),
            "line 61 of .*: answer 'no' is none of its options: A: ct",
        ),
        (changed(options=["B", "A"], answer="A"), "'A' is the letter of one option and the text"),
        (changed(options=["no", "yes"], answer_type="report"), "a report has no options"),
    ],
)
def test_a_bad_line_is_refused_in_one_line(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path)
    with (tmp_path / "questions.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(BadInput, match=message) as error:
        jsonl.load(tmp_path)
    assert "\n" not in str(error.value)


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "questions.jsonl").write_bytes("{ü}".encode("latin-1"))
    with pytest.raises(BadInput, match="write it as UTF-8"):
        jsonl.load(tmp_path)
