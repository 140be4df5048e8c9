"""VQA-RAD in its published form: a small copy of the form, and the real files where they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.trainables.data.small.vqa_rad import rows
from trainables.data import vqa_rad
from trainables.errors import BadInput

REAL = Path(__file__).parents[4] / "shared" / "data" / "vqa_rad"


def write(root: Path, content: object, questions: str, images: str) -> None:
    file = root / questions
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    (root / images).mkdir()
    for image in range(20):
        (root / images / f"synpic{image}.jpg").write_bytes(b"image")


@pytest.mark.parametrize("questions", vqa_rad.QUESTIONS)
@pytest.mark.parametrize("images", vqa_rad.IMAGES)
def test_reads_the_published_form(tmp_path: Path, questions: str, images: str) -> None:
    write(tmp_path, rows(), questions, images)
    data = vqa_rad.load(tmp_path)
    assert len(data.train) + len(data.validation) == 40
    test, _ = data.test
    assert (test.question_id, test.answer, test.answer_type) == ("101", "Yes", "closed")
    assert test.image == tmp_path / images / "synpic0.jpg"
    assert {e.answer for e in data.train if e.answer_type == "open"} == {"2"}


def test_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no 'VQA_RAD Dataset Public\.json' or 'original/VQA_RAD"):
        vqa_rad.load(tmp_path)
    (tmp_path / vqa_rad.QUESTIONS[0]).write_text("[]")
    with pytest.raises(BadInput, match="no 'VQA_RAD Image Folder' or 'images'"):
        vqa_rad.load(tmp_path)


@pytest.mark.parametrize("content", [{}, [{}], [1], [{**rows()[0], "answer_type": "MAYBE"}]])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: object) -> None:
    write(tmp_path, content, vqa_rad.QUESTIONS[0], "images")
    with pytest.raises(BadInput, match="use the published file") as error:
        vqa_rad.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "field", ["qid", "image_name", "question_type", "question", "answer", "answer_type"]
)
@pytest.mark.parametrize("nothing", [float("nan"), None])
def test_what_a_table_has_where_it_has_nothing_is_no_text(
    tmp_path: Path, field: str, nothing: float | None
) -> None:
    content = [*rows()[:-1], {**rows()[-1], field: nothing}]
    write(tmp_path, content, vqa_rad.QUESTIONS[0], "images")
    should = "'OPEN' or 'CLOSED'" if field == "answer_type" else "a text"
    said = rf"row 42 of .*\.json: {field} should be {should}, not (NaN|null)"
    with pytest.raises(BadInput, match=said) as error:
        vqa_rad.load(tmp_path)
    assert "\n" not in str(error.value)


def test_an_image_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    content = [{**row, "image_name": f"../../{row['image_name']}"} for row in rows()]
    write(tmp_path, content, vqa_rad.QUESTIONS[0], "images")
    with pytest.raises(BadInput, match="outside"):
        vqa_rad.load(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real VQA-RAD is not in {REAL}")
def test_the_real_files_have_the_official_counts() -> None:
    data = vqa_rad.load(REAL)
    assert len(data.train) + len(data.validation) == 1797
    assert Counter(e.answer_type for e in data.test) == {"closed": 272, "open": 179}
    assert len(data.images()) == 314
    assert 0.1 < len(data.validation) / 1797 < 0.15
