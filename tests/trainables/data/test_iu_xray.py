"""IU X-ray: a report is the answer to one question about the first image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.data.small.iu_xray import annotation, write
from trainables.data import iu_xray
from trainables.errors import BadInput


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def test_a_report_is_asked_for_with_the_first_image(root: Path) -> None:
    first, _ = iu_xray.load(root).validation
    assert first.question_id == "CXR2_IM-02"
    assert first.image == root / "images" / "CXR2_IM-02" / "0.png"
    assert (first.question, first.answer_type) == (iu_xray.QUESTION, "report")
    assert first.answer.startswith("The heart is normal")


def with_first(**fields: Any) -> dict[str, Any]:
    content = annotation()
    content["train"][0] |= fields
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "lacks train, val or test"),
        ({"train": [], "test": []}, "lacks train, val or test"),
        ({**annotation(), "val": {}}, "holds no list"),
        ({**annotation(), "val": [{}]}, "row 1 of .* lacks id"),
        ({**annotation(), "val": []}, "validation split is empty"),
        (with_first(image_path=[]), r"image_path should be a text, not \[\]"),
        (with_first(image_path=["../../secret.png"]), "outside"),
        (with_first(image_path=[None]), "row 1 of .*: image_path should be a text, not null"),
        (with_first(report=float("nan")), "row 1 of .*: report should be a text, not NaN"),
        (with_first(image_path=["CXR0_IM-00/7.png"]), r"1 of 6 images are missing, first .*7\.png"),
    ],
)
def test_other_files_are_refused_in_one_line(root: Path, content: object, message: str) -> None:
    (root / "annotation.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=message) as error:
        iu_xray.load(root)
    assert "\n" not in str(error.value)
